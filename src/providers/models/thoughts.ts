/**
 * Removes from a text what a model wrote for itself: thoughts between tags, other channels, control tokens. A leak is worse than a lost
 * sentence, so every tag delimits thoughts, unless the text clearly only mentions it:
 * - Tags in code, quotes or parentheses, and pairs in quotes.
 * - Pairs that are joined by "and", that contain only punctuation, whose tags are both words of a sentence, or that are an example on a
 *   line of their own after a colon.
 * - A tag without its counterpart that is a word within a sentence (`models write <think> first`) or its subject (`<think> is a tag`).
 */

const TAG_NAME = '(?:\\w{1,20}:)?(?:think|thinking|thinking_process|thoughts?|reasoning|reasoning_content|scratchpad)';
/** As DeepSeek, Qwen and others write them, and as Mistral, Kimi, OpenThinker, Cohere and Gemma do. */
const OPEN = `<${TAG_NAME}(?:\\s[^<>\\n]{0,80})?>|\\[THINK\\]|◁think▷|<\\|begin_of_thought\\|>|<\\|START_THINKING\\|>|<\\|channel>thought`;
const CLOSE = `</\\s?${TAG_NAME}\\s?>|\\[/THINK\\]|◁/think▷|<\\|end_of_thought\\|>|<\\|END_THINKING\\|>|<channel\\|>`;
const FENCE = '^[ \\t]*(?:```|~~~)';
const CODE_SPAN = '(?<!`)(?<ticks>`{1,2})(?![`\\s])[^`\\n]*[^`\\s]\\k<ticks>(?!`)';
const MARKS = new RegExp(`(?<fence>${FENCE})|${CODE_SPAN}|(?<open>${OPEN})|(?<close>${CLOSE})`, 'gim');

/** The text for the customer; empty if nothing is left. */
export function withoutThoughts(text: string): string {
  return withoutControlTokens(withoutThinking(finalChannel(text.trim())).trim());
}

interface Tag {
  isOpen: boolean;
  start: number;
  end: number;
  /** The text around the tag, up to `CONTEXT_LENGTH`. */
  before: string;
  after: string;
}

/** A part of the text to remove. One that starts at 0 also discards everything kept so far. */
interface Cut {
  start: number;
  end: number;
}

/** Limits the work for each tag, so the time is linear in the length of the text. */
const CONTEXT_LENGTH = 100;

function withoutThinking(text: string): string {
  const tags = tagsIn(text);
  const closing = closingTags(tags);
  let kept = '';
  let keptUntil = 0;
  let readUntil = 0;
  for (const [index, tag] of tags.entries()) {
    if (tag.start < readUntil) continue;
    const close = closing[index];
    const isPairMentioned = close !== undefined && isMentionedPair(text, tag, close);
    const cut = isPairMentioned ? undefined : cutAt(text, tag, close);
    readUntil = cut?.end ?? (isPairMentioned ? close.end : tag.end);
    if (!cut) continue;
    kept = cut.start === 0 ? '' : kept + text.slice(keptUntil, cut.start);
    keptUntil = /\s$/.test(tag.before) ? skipSpaces(text, cut.end) : cut.end;
  }
  return kept + text.slice(keptUntil);
}

/** The tags outside of code, quotes and parentheses. An unclosed fence is not code, because thoughts may end within it. */
function tagsIn(text: string): Tag[] {
  const found: { tag: Tag; fences: number }[] = [];
  let fences = 0;
  for (const { index: start, 0: mark, groups } of text.matchAll(MARKS)) {
    if (groups?.fence !== undefined) fences += 1;
    if (groups?.open === undefined && groups?.close === undefined) continue;
    const end = start + mark.length;
    const before = lastContext(text, start);
    const after = text.slice(end, end + CONTEXT_LENGTH);
    const tag = { isOpen: groups.open !== undefined, start, end, before, after };
    if (!isBetween(SURROUNDING, before, after)) found.push({ tag, fences });
  }
  return found.filter((each) => each.fences % 2 === 0 || (fences - each.fences) % 2 === 0).map(({ tag }) => tag);
}

/** For each start tag, the next end tag. A start tag that is a word and precedes another start tag has none. */
function closingTags(tags: readonly Tag[]): (Tag | undefined)[] {
  const closing: (Tag | undefined)[] = [];
  let close: Tag | undefined;
  for (let index = tags.length - 1; index >= 0; index -= 1) {
    const tag = tags[index] as Tag;
    if (!tag.isOpen) close = tag;
    else if (!(tags[index + 1]?.isOpen && isWord(tag))) closing[index] = close;
  }
  return closing;
}

function cutAt(text: string, tag: Tag, close: Tag | undefined): Cut | undefined {
  if (!tag.isOpen) return endsThoughts(tag) ? { start: 0, end: tag.end } : undefined;
  if (!close) return isWord(tag) || IS_SUBJECT.test(tag.after) ? undefined : { start: tag.start, end: text.length };
  // A start tag that is a word may be a mention within thoughts whose own start tag is missing.
  return { start: isWord(tag) && endsThoughts(close) ? 0 : tag.start, end: close.end };
}

const IS_SUBJECT = /^ (?:is|are|means|marks|opens|closes|starts|ends) [^.?!\n]*(?:[.!\n]|$)/;
const CLOSING_PUNCTUATION = /^[.,;:!?…)\]]/;

/** Whether the tag is a word within a sentence: between a word and a lower-case word, punctuation or the end of the text. */
function isWord({ before, after }: Tag): boolean {
  const followsWord = /[\p{L}\p{M}\p{N},;%'"’”»][ \t]+$/u.test(before);
  return followsWord && (/^(?:$|[ \t]+\p{Ll})/u.test(after) || CLOSING_PUNCTUATION.test(after));
}

/** Whether an end tag without a start tag ends thoughts: it touches a word, is next to a line break, or follows a sentence. */
function endsThoughts({ before, after }: Tag): boolean {
  if (IS_SUBJECT.test(after)) return false;
  const isAfterEnd = /(?:^|[\n.!?…。！？])[ \t]*$/.test(before);
  const isGlued = /\S$/.test(before) || (/^\S/.test(after) && !CLOSING_PUNCTUATION.test(after));
  return isAfterEnd || isGlued || /^[ \t]*\n/.test(after);
}

const AND = /(?:^|[\s>])(?:and|or|to|und|oder|bis|et|ou|y|o|e|и|или|dan|atau|ve|veya|και)[ \t]+$|[和与與或と、]\s?$/iu;

function isMentionedPair(text: string, open: Tag, close: Tag): boolean {
  if (isBetween(QUOTES, open.before, close.after) || AND.test(close.before)) return true;
  const inner = text.slice(open.end, close.start);
  if (open.start > 0 && /^[\s\p{P}]*\p{P}[\s\p{P}]*$/u.test(inner)) return true;
  // As in "write <think> first, and later </think>.".
  if ((isWord(open) || IS_SUBJECT.test(open.after)) && /[ \t]$/.test(close.before) && CLOSING_PUNCTUATION.test(close.after)) return true;
  const isExample = /:[ \t]*\n\s*$/.test(open.before) && /^[ \t]*\n\s*\p{Ll}/u.test(close.after);
  return isExample && !inner.includes('\n');
}

/** What may surround a pair. */
const QUOTES = ['""', "''", '“”', '„“', '‘’', '«»', '「」', '『』'];
/** What may surround a single tag. */
const SURROUNDING = QUOTES.concat('()', '（）');

function isBetween(quotes: readonly string[], before: string, after: string): boolean {
  const isQuoted = quotes.includes(`${before.at(-1)}${after.at(0)}`);
  // A straight quote that follows a word or the end of a sentence is a closing one.
  return isQuoted && !/[^\s([{]["']$/.test(before);
}

function skipSpaces(text: string, from: number): number {
  let index = from;
  while (text[index] === ' ' || text[index] === '\t') index += 1;
  return index;
}

const CHANNEL = /^(?:assistant)?\s*<\|channel\|>\s*(\w+)([\s\S]*)$/;
const HAS_CHANNELS =
  /^\s*(?:<\|start\|>)?(?:assistant)?\s*<\|channel\|>|<\|start\|>assistant\s*<\|channel\|>|<\|channel\|>\s*final\s*<\|message\|>/;
/** The same format, from a server that drops the markers but keeps the names between them. */
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
  /^\s*(?:<s>|<bos>|<\|(?:START_RESPONSE|begin_of_solution)\|>|<\|(?:im_start|start|start_header_id|message)\|>\s*(?:assistant)?\s*(?:<\|(?:end_header_id|message)\|>)?\s*)+/;
const LAST_TOKEN = /(?:<\|(?:im_end|end|eot_id|endoftext|end_of_text|return|END_RESPONSE|end_of_solution)\|>|<end_of_turn>|<eos>|<\/s>)$/;

function withoutControlTokens(text: string): string {
  const rest = text.replace(FIRST_TOKENS, '');
  let end = rest.length;
  for (let token = LAST_TOKEN.exec(lastContext(rest, end)); token; token = LAST_TOKEN.exec(lastContext(rest, end))) {
    const start = end - token[0].length;
    // After a space within a sentence, the token is only mentioned.
    if (/[^\n.!?…。！？\s][ \t]+$/.test(lastContext(rest, start))) break;
    end = start;
    while (/\s/.test(rest.charAt(end - 1))) end -= 1;
  }
  return rest.slice(0, end);
}

function lastContext(text: string, end: number): string {
  return text.slice(Math.max(0, end - CONTEXT_LENGTH), end);
}
