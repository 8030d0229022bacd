/** Signed requests: what is signed, and the header that carries the signature. */

import { createHash, createPrivateKey, createPublicKey, sign, type KeyObject } from "node:crypto";
import { open } from "node:fs/promises";

import { BadKey } from "./errors.js";
import { isKeyId } from "./names.js";
import type { Header } from "./transport.js";

const HEADER = "aril-signature";
const CONTEXT = Buffer.from("aril-signed-request-v1");
const MAX_KEY_FILE_BYTES = 4_096;
const KEY_ID_DIGITS = 16;
const OTHERS = 0o006; // read or write, for everybody

/** A request as it will be sent. `key` is the record's key. */
export interface Request {
  readonly tenant: string;
  readonly topic: string;
  readonly partition: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** The bytes that are signed: a context, then each field with its length before it. */
export function signedMessage(request: Request, keyId: string, timeMs: number): Buffer {
  const [partition, time] = [Buffer.alloc(4), Buffer.alloc(8)];
  partition.writeUInt32BE(request.partition);
  time.writeBigUInt64BE(BigInt(timeMs));
  const fields = [
    Buffer.from(request.tenant),
    Buffer.from(keyId),
    Buffer.from(request.topic),
    partition,
    request.key,
    time,
    request.value,
  ];
  const parts = fields.flatMap((field) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.length);
    return [length, field];
  });
  return Buffer.concat([CONTEXT, ...parts]);
}

export interface SignerOptions {
  /** The name of the public key at the workers; by default that of `aril keys new`. */
  readonly keyId?: string | undefined;
  /** Milliseconds since 1970, close to the brokers' clock. */
  readonly clock?: () => number;
}

/** Signs with one Ed25519 key, in PEM (PKCS #8, not encrypted) or as a KeyObject. */
export class Signer {
  readonly keyId: string;
  readonly #key: KeyObject;
  readonly #clock: () => number;

  /** Throws BadKey. */
  constructor(key: KeyObject | string | Buffer, options: SignerOptions = {}) {
    this.#key = privateKey(key);
    this.#clock = options.clock ?? Date.now;
    this.keyId = options.keyId ?? keyIdOf(this.#key);
    if (!isKeyId(this.keyId)) {
      throw new BadKey(`${JSON.stringify(this.keyId)} cannot name a key (lower case, digits, -)`);
    }
  }

  /** Read a key's file; refused too if everybody on the machine may read it. Throws BadKey. */
  static async fromFile(path: string, options: SignerOptions = {}): Promise<Signer> {
    const pem = Buffer.alloc(MAX_KEY_FILE_BYTES);
    let mode: number;
    let length: number;
    try {
      const file = await open(path, "r");
      try {
        mode = (await file.stat()).mode;
        length = (await file.read(pem, 0, MAX_KEY_FILE_BYTES, 0)).bytesRead;
      } finally {
        await file.close();
      }
    } catch (error) {
      throw new BadKey(`${path}: cannot be read`, { cause: error });
    }
    if (process.platform !== "win32" && (mode & OTHERS) !== 0) {
      throw new BadKey(`${path}: everybody on this machine may read it (chmod 600)`);
    }
    return new Signer(pem.subarray(0, length), options);
  }

  /** The header of one record of the jobs topic, signed now. */
  header(request: Request): Header {
    const timeMs = Math.floor(this.#clock());
    const signature = sign(null, signedMessage(request, this.keyId, timeMs), this.#key);
    const value = `1.${request.tenant}.${this.keyId}.${timeMs}.${signature.toString("hex")}`;
    return [HEADER, Buffer.from(value)];
  }
}

function privateKey(key: KeyObject | string | Buffer): KeyObject {
  let found: KeyObject;
  try {
    found = typeof key === "string" || Buffer.isBuffer(key) ? createPrivateKey(key) : key;
  } catch {
    throw new BadKey("not a private key in PEM, or one behind a password"); // no cause: it may quote
  }
  if (found.type !== "private" || found.asymmetricKeyType !== "ed25519") {
    throw new BadKey("not a private Ed25519 key");
  }
  return found;
}

function keyIdOf(key: KeyObject): string {
  const { x } = createPublicKey(key).export({ format: "jwk" });
  const raw = Buffer.from(x ?? "", "base64url");
  return createHash("sha256").update(raw).digest("hex").slice(0, KEY_ID_DIGITS);
}
