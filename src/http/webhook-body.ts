/**
 * Reads the bodies of webhooks. A signature over the body can only be checked once all of it has arrived, so anybody can make us hold
 * one in memory. Therefore the length of each body is limited, and so is the memory of all unverified bodies together. Above that limit
 * the body that has been arriving for longest is rejected, because an honest sender's arrives within milliseconds. The server's
 * `requestTimeout` limits how long a body may take.
 */
import type { IncomingMessage } from 'node:http';
import type { Readable, Transform } from 'node:stream';
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
  return (request, { limitBytes, isVerified }) =>
    new Promise((resolve, reject) => {
      const body = new IncomingBody(request, { limitBytes, inFlight: isVerified ? undefined : unverified, resolve, reject });
      body.read();
    });
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
  readonly #bodies = new Set<IncomingBody>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  begin(body: IncomingBody): void {
    this.#bodies.add(body);
  }

  /** Counts bytes that a body holds from now on; makes room by giving up the oldest, which may be this one. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= this.#maxBytes) return;
    for (const oldest of this.#bodies) {
      oldest.giveUp();
      if (this.#bytes <= this.#maxBytes) return;
    }
  }

  end(body: IncomingBody, bytes: number): void {
    this.#bodies.delete(body);
    this.#bytes -= bytes;
  }
}

interface BodyParts {
  limitBytes: number;
  /** Undefined: does not count. */
  inFlight: InFlight | undefined;
  resolve(body: Buffer): void;
  reject(error: Error): void;
}

class IncomingBody {
  readonly #request: IncomingMessage;
  readonly #parts: BodyParts;
  #chunks: Buffer[] = [];
  #length = 0;
  /** What counts of it in flight. */
  #held = 0;
  #isSettled = false;
  #decoder: Transform | undefined;

  constructor(request: IncomingMessage, parts: BodyParts) {
    this.#request = request;
    this.#parts = parts;
  }

  read(): void {
    const isTooLarge = Number(this.#request.headers['content-length'] ?? 0) > this.#parts.limitBytes;
    const decoder = isTooLarge ? undefined : decoderOf(this.#request);
    if (decoder !== undefined) this.#begin(decoder);
    else this.#fail(isTooLarge ? tooLarge() : new ApiError(415, 'the encoding of the body is not supported'));
  }

  giveUp(): void {
    this.#fail(new ApiError(503, 'too many webhooks at once, please send again', RETRY_AFTER));
  }

  #begin(decoder: Transform | 'none'): void {
    this.#parts.inFlight?.begin(this);
    if (decoder === 'none') {
      this.#listen(this.#request);
      this.#hold(BYTES_PER_REQUEST);
    } else {
      this.#decoder = decoder;
      this.#listen(this.#request.pipe(decoder));
      this.#hold(BYTES_PER_REQUEST + BYTES_PER_DECODER);
    }
  }

  #listen(source: Readable): void {
    source
      .on('data', (chunk: Buffer) => this.#take(chunk))
      .on('end', () => this.#finish())
      .on('error', () => this.#fail(unreadable()));
    this.#request.on('close', () => {
      if (!this.#request.complete) this.#fail(unreadable());
    });
  }

  #hold(bytes: number): void {
    if (this.#isSettled || this.#parts.inFlight === undefined) return;
    this.#held += bytes;
    this.#parts.inFlight.add(bytes);
  }

  #take(chunk: Buffer): void {
    if (this.#isSettled) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length > this.#parts.limitBytes) this.#fail(tooLarge());
    else this.#hold(chunk.length + BYTES_PER_CHUNK);
  }

  #finish(): void {
    if (this.#isSettled) return;
    this.#settle();
    const [first] = this.#chunks;
    this.#parts.resolve(first !== undefined && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks, this.#length));
  }

  #fail(error: Error): void {
    if (this.#isSettled) return;
    this.#settle();
    // The request's listeners keep this object alive for as long as the sender stays connected.
    this.#chunks = [];
    this.#decoder?.destroy();
    discardBody(this.#request);
    this.#parts.reject(error);
  }

  #settle(): void {
    this.#isSettled = true;
    this.#parts.inFlight?.end(this, this.#held);
  }
}

function tooLarge(): ApiError {
  return new ApiError(413, 'the body is too large');
}

function unreadable(): ApiError {
  return new ApiError(400, 'the body could not be read');
}

/** The decoder that turns the request's body into the bytes that were signed; undefined for an unknown encoding. */
function decoderOf(request: IncomingMessage): Transform | 'none' | undefined {
  switch (request.headers['content-encoding']?.trim().toLowerCase() ?? 'identity') {
    case 'identity':
    case '':
      return 'none';
    case 'gzip':
    case 'x-gzip':
      return createGunzip();
    case 'deflate':
      return createInflate();
    default:
      return undefined;
  }
}
