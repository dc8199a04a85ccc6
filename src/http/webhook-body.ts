/**
 * Reads the bodies of webhooks. A signature over the body can only be checked when all of it is there, so anybody can make us hold one
 * in memory. Therefore each body is bounded in length, and all that are not verified yet are bounded together. When those are too
 * much, the one that has been arriving for longest is given up, because an honest sender's body is there within milliseconds. How long
 * a body may take is the server's `requestTimeout`.
 */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { createGunzip, createInflate } from 'node:zlib';
import { ApiError, RETRY_AFTER } from './errors';

/** Bound of what all unverified bodies of a process hold in memory. */
const MAX_UNVERIFIED_BYTES = 64 * 1024 * 1024;

/** What a body costs besides its bytes: the connection with its headers, a decoder, and a buffer for each piece. */
const BYTES_PER_REQUEST = 16 * 1024;
const BYTES_PER_DECODER = 128 * 1024;
const BYTES_PER_CHUNK = 256;

/** Bounds of a refused body that still comes. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;
const DISCARD_TIMEOUT_MS = 5_000;

export interface BodyOptions {
  /** Bound of the decompressed length. */
  limitBytes: number;
  /** The headers have proven the sender: the body does not count among the unverified. */
  isVerified: boolean;
}

/**
 * Reads a body, decompressed.
 * @throws ApiError 400 (cut off, or not what its encoding says), 413 (too long), 415 (unknown encoding), 503 (too much in flight)
 */
export type BodyReader = (request: IncomingMessage, options: BodyOptions) => Promise<Buffer>;

/** One per process. */
export function createBodyReader(maxUnverifiedBytes = MAX_UNVERIFIED_BYTES): BodyReader {
  const unverified = new InFlight(maxUnverifiedBytes);
  return (request, options) => new IncomingBody(request, options, unverified).read();
}

/** Lets the rest of a refused body pass by, because a connection that is closed at once takes the answer with it; with an end. */
export function discardBody(request: IncomingMessage): void {
  if (request.readableEnded || request.destroyed) return;
  const { socket } = request;
  let left = MAX_DISCARDED_BYTES;
  const timer = setTimeout(() => request.destroy(), DISCARD_TIMEOUT_MS);
  const stop = () => {
    clearTimeout(timer);
    socket.off('close', stop);
  };
  // Once it is answered, a request does not hear of the end of its connection.
  socket.once('close', stop);
  request.once('end', stop).on('error', () => undefined);
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) request.destroy();
  });
}

/** Bodies that are arriving, the oldest first, and what they hold in memory. */
class InFlight {
  readonly #maxBytes: number;
  readonly #bytesOf = new Map<IncomingBody, number>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Counts more bytes of a body; makes room by giving up the oldest, which may be this one. */
  add(body: IncomingBody, bytes: number): void {
    this.#bytesOf.set(body, (this.#bytesOf.get(body) ?? 0) + bytes);
    this.#bytes += bytes;
    for (const oldest of this.#bytesOf.keys()) {
      if (this.#bytes <= this.#maxBytes) return;
      oldest.giveUp();
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
  /** Undefined: does not count. */
  readonly #inFlight: InFlight | undefined;
  readonly #chunks: Buffer[] = [];
  #length = 0;
  /** What the bytes come from; the request itself, as a rule. */
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
        discardBody(this.#request);
        reject(error);
      };
      this.#begin();
    });
  }

  giveUp(): void {
    this.#settle(new ApiError(503, 'too many webhooks at once, please send again', RETRY_AFTER));
  }

  #begin(): void {
    const source = decodedBody(this.#request);
    if (source === undefined) this.#settle(new ApiError(415, 'the encoding of the body is not supported'));
    else if (Number(this.#request.headers['content-length'] ?? 0) > this.#limitBytes) this.#settle(tooLarge());
    else this.#listen(source);
  }

  #listen(source: Readable): void {
    this.#source = source;
    source.on('data', this.#take).on('end', this.#finish).on('error', this.#breakOff);
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
  readonly #breakOff = (): void => this.#settle(new ApiError(400, 'the body could not be read'));
  readonly #close = (): void => {
    if (!this.#request.complete) this.#breakOff();
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

/** The request as a stream of the bytes that were signed; undefined when its encoding is unknown. */
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
