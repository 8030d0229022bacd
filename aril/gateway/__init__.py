"""`aril gateway`: HTTP in front of the queue, with OpenAI's endpoints and streams that outlive it.

It keeps no state of answers: what was asked is on the jobs topic, what was answered is on the reply
topics, and where a reader stands is in the ids that it was given. Any gateway goes on where another
ended. Files and batches it keeps in a folder, which gateways may share (`stored`).
"""
