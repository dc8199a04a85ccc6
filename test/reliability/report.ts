/** The table of the outage matrix: in the terminal, and in docs/reliability.md, where a run replaces only its own rows. */
import type { Findings } from './check';
import { ROWS } from './rows';

/** One line of the table. */
export interface Line {
  title: string;
  /** Undefined if the row cannot be run yet. */
  findings?: Findings & { settledAfterSeconds: number };
  missing?: string;
}

const HEADER = ['Outage', 'Sent', 'Recorded', 'Outcomes', '200 at once', 'Slowest', 'Twice', 'Disordered', 'Settled after', 'Result'];

/** The cells of a line. */
export function cells({ title, findings, missing }: Line): string[] {
  if (findings === undefined) return [title, ...Array.from({ length: HEADER.length - 2 }, () => ''), missing ?? 'not run'];
  const { sent, recorded, outcomes, takenAtOnce, slowestMs, answeredTwice, outOfOrder, settledAfterSeconds, problems } = findings;
  const listed = Object.entries(outcomes).map(([outcome, count]) => `${count} ${outcome}`);
  return [
    title,
    ...[sent, recorded].map(String),
    listed.join(', '),
    ...[
      `${takenAtOnce}`,
      `${(slowestMs / 1_000).toFixed(1)} s`,
      `${answeredTwice}`,
      `${outOfOrder}`,
      `${Math.round(settledAfterSeconds)} s`,
    ],
    problems.length === 0 ? 'holds' : problems.join('; '),
  ];
}

/** A Markdown table. */
export function renderTable(rows: readonly string[][]): string {
  const all = [HEADER, ...rows];
  const widths = HEADER.map((_name, column) => Math.max(3, ...all.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]) => `| ${widths.map((width, column) => (row[column] ?? '').padEnd(width)).join(' | ')} |`;
  return [line(HEADER), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)].join('\n');
}

/** The document with these lines in the table under `heading`; its other rows stay. @throws Error if there is no such heading */
export function updateDocument(document: string, heading: string, lines: readonly Line[]): string {
  const start = document.indexOf(`${heading}\n`);
  if (start < 0) throw new Error(`the document has no heading "${heading}"`);
  const from = start + heading.length + 1;
  const next = document.indexOf('\n## ', from);
  const section = document.slice(from, next < 0 ? undefined : next);
  const texts = section.split('\n').filter((text) => !text.startsWith('|'));
  const known = new Map(section.split('\n').flatMap((text) => (text.startsWith('| ') ? [rowOf(text)] : [])));
  for (const line of lines) known.set(line.title, cells(line));
  const rows = ROWS.map((row) => known.get(row.title) ?? cells({ title: row.title, ...('missing' in row && { missing: row.missing }) }));
  const parts = [texts.join('\n').trim(), renderTable(rows)].filter((part) => part !== '');
  return `${document.slice(0, from)}\n${parts.join('\n\n')}\n${next < 0 ? '' : document.slice(next)}`;
}

function rowOf(text: string): [string, string[]] {
  const row = text
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
  return [row[0] ?? '', row];
}
