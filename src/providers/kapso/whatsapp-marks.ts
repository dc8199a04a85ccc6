/**
 * Turns a model's Markdown into what WhatsApp shows: `*bold*`, `_italic_`, `~struck~`, `- ` lists, code between backticks (WhatsApp's help
 * pages, November 2026). Only marks change: words, numbers, line breaks, code and URLs stay.
 *
 * `*word*` is italic in Markdown and bold in WhatsApp. A model that writes `**` for bold means italic by `*`; another may have been told to
 * write WhatsApp's marks. So `*word*` becomes `_word_` only in a text that has `**`, and a converted text stays as it is.
 *
 * WhatsApp ignores marks between letters or digits, so `10*20*30` stays. A mark that Markdown allows there (`**50%**off`) gets a zero-width
 * space: a visible one would tear words apart, and Chinese, Japanese and Thai are written without spaces.
 */
import MarkdownIt, { type StateInline, type Token } from 'markdown-it';
import { fenceAfter } from './fences';

/** A parser with only the rules enabled here. It reads lists, quotes and HTML as plain lines, because WhatsApp gets them as lines. */
const parser = new MarkdownIt('zero')
  .enable(['heading', 'hr', 'table', 'escape', 'backticks', 'emphasis', 'strikethrough', 'link', 'image', 'autolink'])
  .disable('text_join');
// URLs are shown as the model wrote them.
parser.normalizeLink = (address) => address;
parser.normalizeLinkText = (address) => address;
parser.validateLink = () => true;
parser.inline.ruler.push('bare_address', skipBareAddress);
parser.inline.ruler2.before('balance_pairs', 'single_stars', (state) => {
  for (const delimiters of [state.delimiters, ...state.tokens_meta.map((meta) => meta?.delimiters ?? [])]) pairSingleStars(delimiters);
  return false;
});
parser.inline.State = class extends parser.inline.State {
  override scanDelims(start: number, canSplitWord: boolean) {
    const run = super.scanDelims(start, canSplitWord);
    const [before, after] = [this.src.slice(Math.max(0, start - 2), start), this.src.slice(start + run.length, start + run.length + 2)];
    switch (this.src[start]) {
      case '*':
        return run.length === 1 ? super.scanDelims(start, false) : doubleStars(run, before, after);
      case '_':
        return partOfName(run, before, after);
      default:
        return run;
    }
  }
};

type Run = ReturnType<StateInline['scanDelims']>;

const WORD_AT_START = /^[\p{L}\p{M}\p{N}]/u;
const WORD_AT_END = /[\p{L}\p{M}\p{N}]$/u;

/** Unlike in Markdown, `**` may stand between a word and punctuation, because some languages have no spaces. Between digits it is a power. */
function doubleStars(run: Run, before: string, after: string): Run {
  if (/\d$/.test(before) && /^\d/.test(after)) return { ...run, can_open: false, can_close: false };
  return {
    ...run,
    can_open: run.can_open || (WORD_AT_END.test(before) && /^(?![\p{Pe}\p{Pf}])[\p{P}\p{S}]/u.test(after)),
    can_close: run.can_close || (WORD_AT_START.test(after) && /(?![\p{Ps}\p{Pi}])[\p{P}\p{S}]$/u.test(before)),
  };
}

/** In `__init__.py`, `__init__()` and `_name_@example.com`, underscores are not marks. */
function partOfName(run: Run, before: string, after: string): Run {
  return {
    ...run,
    can_open: run.can_open && !/[\p{L}\p{N}][.@/\\-]$/u.test(before),
    can_close: run.can_close && !/^(?:[.@/\\-][\p{L}\p{N}]|\(\))/u.test(after),
  };
}

/** Lets a single `*` pair only with another one, so that `**4* hotel**` is bold. In a text with `***`, any stars may pair. */
function pairSingleStars(delimiters: StateInline['delimiters']): void {
  const stars = delimiters.filter(({ marker }) => marker === STAR);
  if (stars.some(({ length = 1 }) => length > 2)) return;
  const open: typeof stars = [];
  for (const star of stars.filter(({ length }) => length === 1)) {
    if (star.close && open.pop()) star.open = false;
    else if (star.open) open.push(star);
    else star.close = false;
  }
  for (const star of open) {
    star.open = false;
    star.close = false;
  }
}

const STAR = 42;

/** The text with WhatsApp's marks. Takes time linear in the length. */
export function toWhatsAppMarks(markdown: string): string {
  const sections = sectionsOf(markdown.replace(/\r\n?/g, '\n'));
  const starIsItalic = sections.some(({ blocks }) => blocks.some(hasStrong));
  const converted = sections.map(({ lines, blocks, isCode }) => (isCode ? lines.join('\n') : convertProse(lines, blocks, starIsItalic)));
  const text = converted.join('\n');
  return text.trim() === '' ? markdown : text;
}

/** A block of fenced code, or the text between two. */
interface Section {
  lines: string[];
  isCode: boolean;
  blocks: Token[];
}

function sectionsOf(markdown: string): Section[] {
  const sections: { lines: string[]; isCode: boolean }[] = [];
  let fence: string | undefined;
  for (const line of markdown.split('\n')) {
    const next = fenceAfter(line, fence);
    const isCode = fence !== undefined || next !== undefined;
    const last = sections.at(-1);
    // An opening fence begins a section, even right after another one.
    if (last && last.isCode === isCode && (fence !== undefined || !isCode)) last.lines.push(line);
    else sections.push({ lines: [line], isCode });
    fence = next;
  }
  return sections.map((section) => ({ ...section, blocks: section.isCode ? [] : parser.parse(section.lines.join('\n'), {}) }));
}

function hasStrong({ children }: Token): boolean {
  return children?.some(({ type }) => type === 'strong_open') ?? false;
}

/** Converts block by block, and keeps the empty lines between them. */
function convertProse(lines: string[], blocks: Token[], starIsItalic: boolean): string {
  const converted: string[] = [];
  let line = 0;
  for (const [index, block] of blocks.entries()) {
    if (!block.map || block.level > 0 || block.nesting < 0) continue;
    const [start, end] = block.map;
    for (; line < start; line += 1) converted.push('');
    const text = convertBlock(blocks, index, lines, starIsItalic);
    if (text !== undefined) converted.push(text);
    line = Math.max(line, end);
  }
  for (; line < lines.length; line += 1) converted.push('');
  return converted.join('\n');
}

/** Undefined if nothing of the block is visible. */
function convertBlock(blocks: Token[], index: number, lines: string[], starIsItalic: boolean): string | undefined {
  const { type, map } = blocks[index] as Token;
  if (!map) return undefined;
  const source = lines[map[0]] ?? '';
  const content = blocks[index + 1];
  switch (type) {
    case 'heading_open':
      return bold(new Inline({ starIsItalic, isBold: true }).convert(content?.children ?? []));
    case 'table_open':
      return tableRows(lines.slice(...map), starIsItalic).join('\n') || undefined;
    case 'hr':
      return source.includes('-') ? source : '---';
    default:
      return /^\s*/.exec(source)?.[0] + new Inline({ starIsItalic, isBold: false }).convert(content?.children ?? []);
  }
}

function bold(text: string): string {
  return text.trim() === '' ? '' : `*${text.trim()}*`;
}

/** One line per row. Read from the source, because the parser drops cells beyond the columns of the header. */
function tableRows([head = '', _delimiters, ...rows]: string[], starIsItalic: boolean): string[] {
  return [
    bold(tableRow(head, { starIsItalic, isBold: true })),
    ...rows.map((row) => tableRow(row, { starIsItalic, isBold: false })),
  ].filter((row) => row !== '');
}

function tableRow(line: string, context: InlineContext): string {
  const cells = line.trim().replace(/^\|/, '').replace(/\|$/, '').replace(/ {2,}/g, ' ').trim();
  const [content] = parser.parseInline(cells, {});
  return new Inline(context)
    .convert(content?.children ?? [])
    .replaceAll('\n', ' ')
    .trim();
}

interface InlineContext {
  starIsItalic: boolean;
  /** Whether everything is bold already. */
  isBold: boolean;
}

/** The content of one block. */
class Inline {
  readonly #starIsItalic: boolean;
  readonly #isBold: boolean;
  #pieces: string[] = [];
  /** Marks that are open, outermost first; undefined for one that is not shown. */
  readonly #open: (string | undefined)[] = [];
  /** Index of the first piece of the link's text. */
  #linkStart = 0;
  #link: Token | undefined;
  /** Number of pieces when the last mark was closed. */
  #closedAt = -1;
  /** Index of the piece with the last opening `*`. */
  #boldAt = -1;
  /** Index of the last piece of text with a star in it. */
  #lastStarAt = -1;

  constructor({ starIsItalic, isBold }: InlineContext) {
    this.#starIsItalic = starIsItalic;
    this.#isBold = isBold;
  }

  convert(tokens: readonly Token[]): string {
    for (const [index, token] of tokens.entries()) {
      if (token.type === 'text_special') this.#addEscaped(token, tokens[index + 1]);
      else this.#add(token);
    }
    return this.#pieces.join('');
  }

  #add(token: Token): void {
    const { type, content, markup } = token;
    switch (type) {
      case 'strong_open':
        this.#openMark('*');
        return;
      case 'em_open':
        this.#openMark(markup === '*' && !this.#starIsItalic && !this.#isWithinBold ? '*' : '_');
        return;
      case 's_open':
        this.#openMark('~');
        return;
      case 'strong_close':
      case 'em_close':
      case 's_close':
        this.#closeMark();
        return;
      case 'code_inline':
        this.#push(codeSpan(markup, content));
        return;
      case 'hardbreak':
        this.#addText('\n');
        return;
      case 'link_open':
        this.#link = token;
        this.#linkStart = this.#pieces.length;
        return;
      case 'link_close':
        this.#endLink();
        return;
      case 'image':
        this.#push(withAddress(content, attribute(token, 'src'), attribute(token, 'title')));
        return;
      default:
        if (content.includes('*')) this.#lastStarAt = this.#pieces.length;
        this.#addText(content);
    }
  }

  /** Keeps the backslash of a character that would otherwise be a mark, which it is neither within a word nor between spaces. */
  #addEscaped({ content, markup }: Token, next: Token | undefined): void {
    const before = this.#pieces.at(-1)?.slice(-2) ?? '';
    const after = next === undefined || next.type === 'text' ? (next?.content ?? '') : markup;
    const isWithinWord = WORD_AT_END.test(before) && WORD_AT_START.test(after);
    const isBetweenSpaces = /(?:^|\S)[ \t]$/.test(before) && /^(?:\s|$)/.test(after);
    const isPlain = /^[*_~]$/.test(content) ? isWithinWord || isBetweenSpaces : !/^[`\\]$/.test(content);
    this.#push(isPlain ? content : markup);
  }

  get #isWithinBold(): boolean {
    return this.#isBold || this.#open.includes('*');
  }

  #openMark(mark: string): void {
    const isShown = !this.#open.includes(mark) && !(this.#isBold && mark === '*');
    this.#open.push(isShown ? mark : undefined);
    if (isShown && mark === '*') this.#boldAt = this.#pieces.length;
    if (isShown) this.#push(WORD_AT_END.test(this.#pieces.at(-1)?.slice(-2) ?? '') ? ZERO_WIDTH_SPACE + mark : mark);
  }

  #closeMark(): void {
    const mark = this.#open.pop();
    if (mark === undefined) return;
    if (mark === '*' && this.#isBoldCutShort) {
      this.#pieces[this.#boldAt] = '';
      return;
    }
    this.#push(mark);
    this.#closedAt = this.#pieces.length;
  }

  /** Whether a star within the bold text would end it early, as in `*4* hotel*`. */
  get #isBoldCutShort(): boolean {
    if (this.#lastStarAt <= this.#boldAt) return false;
    const words = this.#pieces.slice(this.#boldAt + 1).join('');
    return !words.includes('\n') && /(?<![\p{L}\p{N}])\*|\*(?![\p{L}\p{N}])/u.test(words);
  }

  /** WhatsApp's marks end with the line, so open ones are closed there and opened again on the next line. */
  #addText(text: string): void {
    const marks = this.#open.filter((mark) => mark !== undefined);
    const [first = '', ...others] = this.#withDashes(text.replace(/<br ?\/?>/gi, '\n')).split('\n');
    this.#push(first);
    for (const line of others) {
      const indent = /^[ \t]*/.exec(line)?.[0] ?? '';
      this.#push(`${marks.toReversed().join('')}\n${indent}${marks.join('')}${line.slice(indent.length)}`);
    }
  }

  /** `* ` and `+ ` at the beginning of a line are list items. */
  #withDashes(text: string): string {
    const isLineStart = this.#pieces.length === 0 || this.#pieces.at(-1)?.endsWith('\n');
    const dashed = text.replace(/\n([ \t]*)[*+](?=[ \t])/g, '\n$1-');
    return isLineStart ? dashed.replace(/^([ \t]*)[*+](?=[ \t])/, '$1-') : dashed;
  }

  #endLink(): void {
    const words = this.#pieces.splice(this.#linkStart).join('');
    const link = this.#link;
    if (!link) return;
    this.#link = undefined;
    this.#push(link.markup === 'autolink' ? words : withAddress(words, attribute(link, 'href'), attribute(link, 'title')));
  }

  #push(piece: string): void {
    if (piece === '') return;
    const isGlued = this.#pieces.length === this.#closedAt && WORD_AT_START.test(piece);
    this.#pieces.push(isGlued ? ZERO_WIDTH_SPACE + piece : piece);
  }
}

const ZERO_WIDTH_SPACE = '\u200B';

function attribute(token: Token, name: string): string {
  return String(token.attrGet(name) ?? '');
}

/** A span whose content begins or ends with a backtick needs a space there. */
function codeSpan(markup: string, content: string): string {
  const padding = content.startsWith('`') || content.endsWith('`') ? ' ' : '';
  return `${markup}${padding}${content}${padding}${markup}`;
}

/** The words with the URL in parentheses, or only the URL if the words are the same. */
function withAddress(words: string, href: string, title: string): string {
  const address = href.replace(/^(mailto|tel):/i, '');
  const shown = [address, title].filter((part) => part !== '').join(', ');
  if (shown === '') return words;
  if (words.trim() === '') return shown;
  return comparable(words) === comparable(address) ? shown : `${words} (${shown})`;
}

function comparable(address: string): string {
  return address
    .toLowerCase()
    .replace(/[*_~ ]/g, '')
    .replace(/^https?:\/\//, '')
    .replace(/\/$/, '');
}

/** Characters that do not count as part of a URL at its end. */
const AFTER_ADDRESS = new Set('*_~.,;:!?\'")}');

/** Copies the rest of `https://…`, where underscores are not marks, without the backslashes before punctuation. */
function skipBareAddress(state: StateInline, silent: boolean): boolean {
  const { src, pos, posMax } = state;
  if (!src.startsWith('://', pos) || !/https?$/i.test(src.slice(Math.max(0, pos - 5), pos))) return false;
  const rest = /(?:(?!\*\*)[^\s<>[\]`])+/y;
  rest.lastIndex = pos;
  let end = Math.min(posMax, pos + (rest.exec(src)?.[0].length ?? 0));
  while (end > pos + 3 && AFTER_ADDRESS.has(src.charAt(end - 1))) end -= 1;
  if (!silent) state.pending += src.slice(pos, end).replace(/\\(?=[!-/:-@[-`{-~])/g, '');
  state.pos = end;
  return true;
}
