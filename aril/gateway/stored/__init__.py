"""What a gateway keeps for `/v1/files` and `/v1/batches`: a folder, which several may share.

    <tenant>/files/<file>.jsonl      what was uploaded, and what batches have brought
                  /<file>.json       about it; written last: what it does not tell of is not there
    <tenant>/batches/<batch>/
        batch.json                   how it stands; written last, too
        input.jsonl                  a link to the input, which so outlives its deletion
        answers.jsonl, ….batch       as of `aril batch run`: the output is the state
        cancel                       somebody wants it ended
        lock                         held by the gateway that works on it
    <tenant>/slots/<n>               one is held for each batch that is worked on
    <tenant>/keys/<sha256>           the batch that an Idempotency-Key has made

* `disk`      files that are there whole or not at all, and locks
* `ids`       ids that sort by when they were made
* `files`     a tenant's files
* `records`   what is written of a batch, and what is told of it
* `batches`   a tenant's batches
* `results`   answers → the files of output and of errors
* `runner`    one batch to its end
* `keeper`    which batches this gateway works on, and what has had its time
* `store`     all tenants

Whatever is killed at whatever moment, the folder says what is to be done next. A lock is gone with
its process, so another gateway goes on, under the same ids of jobs (decision 092).
"""
