/** Names that cross the wire. Each pattern covers all of the text (`$` is the very end here). */

const TENANT = /^[a-z0-9][a-z0-9-]{0,62}$/;
const JOB_ID = /^[A-Za-z0-9._-]{1,64}$/;
const WORKER = /^[A-Za-z0-9._:-]{1,128}$/;

/** Whether it is a tenant's name; `shared` is reserved. */
export function isTenant(value: unknown): value is string {
  return typeof value === "string" && value !== "shared" && TENANT.test(value);
}

export function isJobId(value: unknown): value is string {
  return typeof value === "string" && JOB_ID.test(value);
}

export function isWorker(value: unknown): value is string {
  return typeof value === "string" && WORKER.test(value);
}

/** Whether it can name a tenant's key. */
export function isKeyId(value: unknown): value is string {
  return typeof value === "string" && TENANT.test(value);
}
