/** Splits a text into messages that WhatsApp accepts. */
import { fenceAfter, MAX_FENCE_LENGTH } from './fences';

/** What ends a fence: a line break and the marker. */
const FENCE_END_LENGTH = 1 + MAX_FENCE_LENGTH;

const SENTENCES = new Intl.Segmenter('und', { granularity: 'sentence' });
const GRAPHEMES = new Intl.Segmenter('und', { granularity: 'grapheme' });
/** Maximum length of a character, in UTF-16 code units, when its end is looked for. */
const LONGEST_GRAPHEME = 64;

/**
 * The text in parts of at most `maxLength` UTF-16 code units (at least 100). A text never has fewer of them than characters, so the limit
 * holds whichever WhatsApp counts. Splits between paragraphs, else lines, sentences, words or characters: the first that gives a part that
 * is not very short. White space at a split is dropped, and split code is code in both parts. No part is empty, unless the text is blank.
 */
export function splitText(text: string, maxLength: number): string[] {
  const parts: string[] = [];
  let rest = text;
  while (rest.length > maxLength) {
    const end = splitAt(rest, maxLength - FENCE_END_LENGTH);
    const part = rest.slice(0, end).trimEnd();
    const fence = openFence(part);
    rest = rest.slice(end);
    rest = fence === undefined ? rest.trimStart() : `${fence}\n${rest.replace(/^\s*\n/, '')}`;
    if (part !== '') parts.push(fence === undefined ? part : `${part}\n${fence}`);
  }
  return rest.trim() === '' && parts.length > 0 ? parts : [...parts, rest];
}

/** Where the first part ends. */
function splitAt(text: string, maxLength: number): number {
  const least = maxLength / 4;
  for (const find of [lastParagraph, lastLine, lastSentence, lastWord]) {
    const end = find(text, maxLength);
    if (end >= least) return end;
  }
  return lastCharacter(text, maxLength, least);
}

function lastParagraph(text: string, maxLength: number): number {
  return text.lastIndexOf('\n\n', maxLength);
}

function lastLine(text: string, maxLength: number): number {
  return text.lastIndexOf('\n', maxLength);
}

function lastSentence(text: string, maxLength: number): number {
  return [...SENTENCES.segment(text.slice(0, maxLength))].at(-1)?.index ?? 0;
}

function lastWord(text: string, maxLength: number): number {
  for (let end = maxLength; end > 0; end -= 1) if (/\s/.test(text.charAt(end))) return end;
  return 0;
}

/** Splits between two visible characters (graphemes) or, if one is too long, between two code points. */
function lastCharacter(text: string, maxLength: number, least: number): number {
  const starts = [...GRAPHEMES.segment(text.slice(0, maxLength + LONGEST_GRAPHEME))].map(({ index }) => index);
  const end = starts.findLast((index) => index <= maxLength) ?? 0;
  if (end >= least) return end;
  return /[\uD800-\uDBFF]/.test(text.charAt(maxLength - 1)) ? maxLength - 1 : maxLength;
}

function openFence(text: string): string | undefined {
  return text.split('\n').reduce<string | undefined>((open, line) => fenceAfter(line, open), undefined);
}
