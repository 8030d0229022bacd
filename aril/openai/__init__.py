"""OpenAI's two endpoints in the words of the contract: pure, for whoever serves or batches them.

* `requests`   a request's body → the jobs that it asks for
* `responses`  their answers → the response's body
* `chunks`     the events of their streams → the chunks of a streamed response
* `errors`     what went wrong → status, body and headers

Nothing here sends, waits or looks anything up: what the backbone is called, and what text a token
is, the caller says, if it knows.
"""
