/**
 * Removes from a text what a model wrote for itself: thoughts between tags, other channels, control tokens. A tag that is only mentioned
 * stays: one in code or quotes, before punctuation, or as a word of its own in a line.
 */

/** Tags as DeepSeek, Qwen and others write them, as Mistral does, and as Kimi does. */
const TAG_NAME = '(?:\\w+:)?(?:think|thinking|thoughts?|reasoning)';
const OPEN = `(?:<${TAG_NAME}>|\\[THINK\\]|◁think▷)`;
const CLOSE = `(?:</${TAG_NAME}>|\\[/THINK\\]|◁/think▷)`;

const QUOTE = /["'`“”‘’«»]/;
const CLOSING_PUNCTUATION = /[.,;:!?)\]]/;
const CODE_FENCE = /^```/gm;

/** The text for the customer; empty if nothing is left. */
export function withoutThoughts(text: string): string {
  return withoutControlTokens(withoutThinking(finalChannel(text.trim())).trim());
}

interface Tag {
  start: number;
  end: number;
}

function withoutThinking(text: string): string {
  let rest = text;
  for (let block = findBlock(rest); block; block = findBlock(rest)) rest = rest.slice(0, block.start) + rest.slice(block.end);
  // Without a start tag: the chat template has already put it into the prompt.
  const end = tags(rest, CLOSE).findLast((tag) => endsThoughts(rest, tag));
  return end ? rest.slice(end.end) : rest;
}

/** The first block of thoughts; without an end tag, it reaches to the end of the text. */
function findBlock(text: string): Tag | undefined {
  const closing = tags(text, CLOSE);
  for (const open of tags(text, OPEN)) {
    if (isMention(text, open)) continue;
    const close = closing.find(({ start }) => start >= open.end);
    if (startsThoughts(text, open, close !== undefined)) return { start: open.start, end: close?.end ?? text.length };
  }
  return undefined;
}

/** A tag at the start of a line, or attached to what follows it; with a later end tag, also one at the end of a line. */
function startsThoughts(text: string, { start, end }: Tag, isClosed: boolean): boolean {
  const startsLine = text.slice(text.lastIndexOf('\n', start - 1) + 1, start).trim() === '';
  const isGlued = /^[\p{L}\p{N}]/u.test(text.slice(end));
  return startsLine || isGlued || (isClosed && /^[ \t]*\n/.test(text.slice(end)));
}

/** A tag after a line or a sentence, attached to a word, or before an empty line. */
function endsThoughts(text: string, tag: Tag): boolean {
  if (isMention(text, tag)) return false;
  const [before, after] = [text.slice(0, tag.start), text.slice(tag.end)];
  return /(?:^|\n|[.!?…。！？])[ \t]*$/.test(before) || /\S$/.test(before) || /^[ \t]*\n[ \t]*\n/.test(after);
}

function isMention(text: string, { start, end }: Tag): boolean {
  const [before, after] = [text[start - 1] ?? '', text[end] ?? ''];
  const fences = text.slice(0, start).match(CODE_FENCE)?.length ?? 0;
  return QUOTE.test(before) || QUOTE.test(after) || CLOSING_PUNCTUATION.test(after) || fences % 2 === 1;
}

function tags(text: string, pattern: string): Tag[] {
  return [...text.matchAll(new RegExp(pattern, 'gi'))].map(({ index, 0: { length } }) => ({ start: index, end: index + length }));
}

const CHANNEL = /^(?:assistant)?\s*<\|channel\|>\s*(\w+)([\s\S]*)$/;
const HAS_CHANNELS =
  /^\s*(?:<\|start\|>)?(?:assistant)?\s*<\|channel\|>|<\|start\|>assistant\s*<\|channel\|>|<\|channel\|>\s*final\s*<\|message\|>/;
/** The same, from a server that drops the markers but not the names between them. */
const BARE_CHANNELS = /^\s*analysis[\s\S]*assistantfinal/;

/** The text in the channel `final` (the harmony format of gpt-oss); the whole text if it has no channels. */
function finalChannel(text: string): string {
  if (!HAS_CHANNELS.test(text)) return text.replace(BARE_CHANNELS, '');
  const final = text.split(/<\|(?:start|end|return|call)\|>|(?=<\|channel\|>)/).flatMap((piece) => {
    const [, channel, content = ''] = CHANNEL.exec(piece) ?? [];
    return channel === 'final' ? [content.replace(/^[\s\S]*?<\|message\|>/, '').trim()] : [];
  });
  return final.join('\n');
}

const FIRST_TOKENS =
  /^\s*(?:<s>|<bos>|<\|(?:im_start|start|start_header_id|message)\|>\s*(?:assistant)?\s*(?:<\|(?:end_header_id|message)\|>)?\s*)+/;
const LAST_TOKEN = /(?:<\|(?:im_end|end|eot_id|endoftext|end_of_text|return)\|>|<end_of_turn>|<eos>|<\/s>)$/;

function withoutControlTokens(text: string): string {
  let rest = text.replace(FIRST_TOKENS, '');
  for (let token = LAST_TOKEN.exec(rest); token; token = LAST_TOKEN.exec(rest)) {
    const before = rest.slice(0, token.index);
    // After a space within a sentence, it would be a mention.
    if (/[^\n.!?…。！？\s][ \t]+$/.test(before)) break;
    rest = before.trimEnd();
  }
  return rest;
}
