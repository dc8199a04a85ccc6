/** Certificates for servers of a test, made with openssl. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A certificate and its key, as files. It is its own authority. */
export interface Certificate {
  certFile: string;
  keyFile: string;
}

/** Makes a self-signed certificate in `folder` for these names (`DNS:example.test`, `IP:127.0.0.1`). */
export async function makeCertificate(folder: string, name: string, ...alternativeNames: string[]): Promise<Certificate> {
  const [certFile, keyFile] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile];
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=${alternativeNames.join(',')}`];
  await promisify(execFile)('openssl', ['req', '-x509', ...key, '-out', certFile, '-days', '2', ...subject]);
  return { certFile, keyFile };
}
