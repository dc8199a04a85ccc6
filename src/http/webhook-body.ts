/**
 * Reads the bodies of webhooks. A signature over the body can only be checked once all of it has arrived, so anybody can make us hold
 * one in memory. Therefore the length of each body is limited, and so is the memory of all unverified bodies together. Above that limit
 * the body that has been arriving for longest is rejected, because an honest sender's arrives within milliseconds. The server's
 * `requestTimeout` limits how long a body may take.
 */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { createGunzip, createInflate } from 'node:zlib';
import { ApiError, RETRY_AFTER } from './errors';

/** Maximum memory for all unverified bodies of a process. */
const MAX_UNVERIFIED_BYTES = 64 * 1024 * 1024;

/** Memory beyond the bytes of a body: the connection with its headers, a decompressor, and an object per chunk. */
const BYTES_PER_REQUEST = 16 * 1024;
const BYTES_PER_DECODER = 128 * 1024;
const BYTES_PER_CHUNK = 256;

/** Limits for discarding the rest of a rejected body. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;
const DISCARD_TIMEOUT_MS = 5_000;

export interface BodyOptions {
  /** Maximum decompressed length. */
  limitBytes: number;
  /** The headers have proven the sender, so the body does not count as unverified. */
  isVerified: boolean;
}

/**
 * Reads and decompresses a body.
 * @throws ApiError 400 (cut off, or not in its declared encoding), 413 (too long), 415 (unknown encoding), 503 (too many at once)
 */
export type BodyReader = (request: IncomingMessage, options: BodyOptions) => Promise<Buffer>;

/** One per process. */
export function createBodyReader(maxUnverifiedBytes = MAX_UNVERIFIED_BYTES): BodyReader {
  const unverified = new InFlight(maxUnverifiedBytes);
  return (request, options) => new IncomingBody(request, options, unverified).read();
}

/** Reads and drops the rest of a rejected body, within limits: closing the connection at once could lose the response. */
export function discardBody(request: IncomingMessage): void {
  if (request.readableEnded || request.destroyed) return;
  const { socket } = request;
  let left = MAX_DISCARDED_BYTES;
  const timer = setTimeout(() => request.destroy(), DISCARD_TIMEOUT_MS);
  const stop = () => {
    clearTimeout(timer);
    socket.off('close', stop);
  };
  // After its response, a request no longer emits an event when its connection ends.
  socket.once('close', stop);
  request.once('end', stop).on('error', () => undefined);
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) request.destroy();
  });
}

/** The bodies that are arriving, oldest first, and their memory. */
class InFlight {
  readonly #maxBytes: number;
  readonly #bytesOf = new Map<IncomingBody, number>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Counts more bytes of a body; if it gets too much, rejects the oldest bodies, possibly this one. */
  add(body: IncomingBody, bytes: number): void {
    this.#bytesOf.set(body, (this.#bytesOf.get(body) ?? 0) + bytes);
    this.#bytes += bytes;
    for (const oldest of this.#bytesOf.keys()) {
      if (this.#bytes <= this.#maxBytes) return;
      oldest.reject();
    }
  }

  release(body: IncomingBody): void {
    this.#bytes -= this.#bytesOf.get(body) ?? 0;
    this.#bytesOf.delete(body);
  }
}

class IncomingBody {
  readonly #request: IncomingMessage;
  readonly #limitBytes: number;
  /** Undefined if the sender is verified. */
  readonly #inFlight: InFlight | undefined;
  readonly #chunks: Buffer[] = [];
  #length = 0;
  /** The decompressor, or the request itself. */
  #source: Readable | undefined;
  #settle: (error?: Error) => void = () => undefined;

  constructor(request: IncomingMessage, { limitBytes, isVerified }: BodyOptions, unverified: InFlight) {
    this.#request = request;
    this.#limitBytes = limitBytes;
    this.#inFlight = isVerified ? undefined : unverified;
  }

  read(): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#settle = (error) => {
        this.#stop();
        if (error === undefined) return resolve(this.#whole());
        // The request keeps us as long as its sender likes.
        this.#chunks.length = 0;
        discardBody(this.#request);
        reject(error);
      };
      this.#begin();
    });
  }

  reject(): void {
    this.#settle(new ApiError(503, 'too many webhooks at once; please send it again', RETRY_AFTER));
  }

  #begin(): void {
    const source = decodedBody(this.#request);
    if (source === undefined) this.#settle(new ApiError(415, 'the content encoding is not supported'));
    else if (Number(this.#request.headers['content-length'] ?? 0) > this.#limitBytes) this.#settle(tooLarge());
    else this.#listen(source);
  }

  #listen(source: Readable): void {
    this.#source = source;
    source.on('data', this.#take).on('end', this.#finish).on('error', this.#fail);
    this.#request.on('close', this.#close);
    this.#inFlight?.add(this, BYTES_PER_REQUEST + (source === this.#request ? 0 : BYTES_PER_DECODER));
  }

  readonly #take = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length > this.#limitBytes) this.#settle(tooLarge());
    else this.#inFlight?.add(this, chunk.length + BYTES_PER_CHUNK);
  };

  readonly #finish = (): void => this.#settle();
  readonly #fail = (): void => this.#settle(new ApiError(400, 'the body could not be read'));
  readonly #close = (): void => {
    if (!this.#request.complete) this.#fail();
  };

  #stop(): void {
    this.#settle = () => undefined;
    this.#inFlight?.release(this);
    this.#request.off('close', this.#close);
    this.#source?.off('data', this.#take).off('end', this.#finish);
    if (this.#source !== this.#request) this.#source?.destroy();
  }

  #whole(): Buffer {
    const [first] = this.#chunks;
    return first !== undefined && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks, this.#length);
  }
}

function tooLarge(): ApiError {
  return new ApiError(413, 'the body is too large');
}

/** A stream of the decompressed body; undefined if the encoding is unknown. */
function decodedBody(request: IncomingMessage): Readable | undefined {
  switch (request.headers['content-encoding']?.trim().toLowerCase() ?? 'identity') {
    case 'identity':
    case '':
      return request;
    case 'gzip':
    case 'x-gzip':
      return request.pipe(createGunzip());
    case 'deflate':
      return request.pipe(createInflate());
    default:
      return undefined;
  }
}
