/** The recording of a simulated call. */

const SAMPLE_RATE = 8_000;
const BYTES_PER_SAMPLE = 2;
const WAV_HEADER_BYTES = 44;
const TONE_HZ = 440;
const TONE_AMPLITUDE = 4_000;

/** A tone as a WAV file (mono, 16 bit, 8 kHz). */
export function recordingWav(seconds: number): Buffer {
  const samples = Math.round(seconds * SAMPLE_RATE);
  const wav = Buffer.alloc(WAV_HEADER_BYTES + samples * BYTES_PER_SAMPLE);
  wav.write('RIFF', 0);
  wav.writeUInt32LE(wav.length - 8, 4);
  wav.write('WAVEfmt ', 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20);
  wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(SAMPLE_RATE, 24);
  wav.writeUInt32LE(SAMPLE_RATE * BYTES_PER_SAMPLE, 28);
  wav.writeUInt16LE(BYTES_PER_SAMPLE, 32);
  wav.writeUInt16LE(8 * BYTES_PER_SAMPLE, 34);
  wav.write('data', 36);
  wav.writeUInt32LE(samples * BYTES_PER_SAMPLE, 40);
  for (let sample = 0; sample < samples; sample += 1) {
    const level = Math.sin((2 * Math.PI * TONE_HZ * sample) / SAMPLE_RATE);
    wav.writeInt16LE(Math.round(TONE_AMPLITUDE * level), WAV_HEADER_BYTES + sample * BYTES_PER_SAMPLE);
  }
  return wav;
}
