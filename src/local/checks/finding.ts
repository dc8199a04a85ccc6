/** What a check of a set-up has found. */

/** `problem`: it does not work. `warning`: it works, but not as it should. `note`: it was not checked, or is switched off. */
export type Level = 'ok' | 'note' | 'warning' | 'problem';

/** One line of `npm run doctor`. Never contains a secret, a phone number or a message. */
export interface Finding {
  subject: string;
  level: Level;
  /** What is, and, unless all is well, what to do. */
  text: string;
}

/** Findings about one subject. */
export function about(subject: string) {
  const finding =
    (level: Level) =>
    (text: string): Finding => ({ subject, level, text });
  return { ok: finding('ok'), note: finding('note'), warning: finding('warning'), problem: finding('problem') };
}

/** What keeps a message from being answered. */
export function problemsIn(findings: readonly Finding[]): string[] {
  return findings.filter(({ level }) => level === 'problem').map(({ text }) => text);
}
