import { toWhatsAppMarks } from './whatsapp-marks';

test.each([
  ['a heading', '## Prices', '*Prices*'],
  ['a heading with marks in it', '# **Prices** of *today* ##', '*Prices of _today_*'],
  ['bold', '**Small**: 5 EUR, __large__: 9 EUR', '*Small*: 5 EUR, *large*: 9 EUR'],
  ['italic beside bold', '**b**, *i* and _j_', '*b*, _i_ and _j_'],
  ['bold and italic at once', '***both*** and **bold _both_**', '_*both*_ and *bold _both_*'],
  ['struck', '~~9 EUR~~ 5 EUR', '~9 EUR~ 5 EUR'],
  ['bold over two lines, where a mark ends with its line', '**one\n  two**', '*one*\n  *two*'],
  ['a list', '* a\n+ b\n- c\n  * d\n1. e', '- a\n- b\n- c\n  - d\n1. e'],
  ['a list whose items begin bold', '* **Large**: 9 EUR\n* *small*', '- *Large*: 9 EUR\n- _small_'],
  ['a link', '[Order here](https://shop.example.test/a_b_c)', 'Order here (https://shop.example.test/a_b_c)'],
  ['a link with a title', '[Order](https://x.test "today")', 'Order (https://x.test, today)'],
  ['a link whose words are its address', '[x.test](https://x.test/) <https://y.test>', 'https://x.test/ https://y.test'],
  ['links to write and to call', '[a@x.test](mailto:a@x.test), [call us](tel:+15550100)', 'a@x.test, call us (+15550100)'],
  ['a picture', '![our shop](https://x.test/a.png)', 'our shop (https://x.test/a.png)'],
  ['a table', '| size | price |\n|:---|---:|\n| **S** | 5 |\n| L | `a|b` |', '*size | price*\n*S* | 5\nL | `a|b`'],
  ['a table row that is longer than its head', '|a|\n|-|\n|b|c|', '*a*\nb|c'],
  ['a rule', 'a\n\n***\n\nb\n---', 'a\n\n---\n\nb\n---'],
  ['sizes beside bold', '**Size:** 10*20*30 cm', '*Size:* 10*20*30 cm'],
  ['a sum beside bold', '**Total:** 2*3*4 = 24', '*Total:* 2*3*4 = 24'],
  ['a password beside bold', '**Wi-Fi:** pass*word*123', '*Wi-Fi:* pass*word*123'],
  ['a code beside bold', 'Code: AB*12*CD **ok**', 'Code: AB*12*CD *ok*'],
  ['two sizes beside bold', '**A**\n\n10*15 cm, 20*30 cm', '*A*\n\n10*15 cm, 20*30 cm'],
  ['powers beside bold', '**A** 2**3 and 4**5', '*A* 2**3 and 4**5'],
  ['stars of hotels', '5* stars, **4* hotel** and 3* hotel', '5* stars, 4* hotel and 3* hotel'],
  ['a size in bold', '**Size 10*20 cm**, **b**', '*Size 10*20 cm*, *b*'],
  ['a file with underscores beside bold', '**File** __init__.py', '*File* __init__.py'],
  ['an escaped address to write to', 'john\\_doe@example.com', 'john_doe@example.com'],
  ['an escaped name', 'snake\\_case', 'snake_case'],
  ['an escaped sum', '5 \\* 3 = 15', '5 * 3 = 15'],
  ['an escaped address', 'https://x.test/a\\_b', 'https://x.test/a_b'],
  ['an escaped address behind words', '[Order](https://x.test/a\\_b)', 'Order (https://x.test/a_b)'],
  ['bold in Chinese', '**注意：**请您带上护照。', '*注意：*\u200B请您带上护照。'],
  ['bold in Japanese', '価格は**「1000円」**です', '価格は\u200B*「1000円」*\u200Bです'],
  ['bold in Thai', '**ราคา:**100 บาท', '*ราคา:*\u200B100 บาท'],
  ['bold before a number', '**Precio:**100 €', '*Precio:*\u200B100 €'],
  ['bold after a sign', '**50%**off', '*50%*\u200Boff'],
  ['bold before a word', '**Note:**text', '*Note:*\u200Btext'],
  ['bold within a word', 'un**believ**able', 'un\u200B*believ*\u200Bable'],
  ['bold twice, without spaces', '**A:**b **C:**d (**e**)', '*A:*\u200Bb *C:*\u200Bd (*e*)'],
  ['bold words of a link', '[**Order**](https://x.test)now', '*Order* (https://x.test)now'],
  ['an escaped character', 'costs \\$5 \\(about\\)', 'costs $5 (about)'],
  ['a line break in HTML', 'a<br>b<br/>c', 'a\nb\nc'],
  ['line ends of Windows', '**a**\r\nb', '*a*\nb'],
])('when a model writes %s, then WhatsApp shows it', (_what, markdown, shown) => {
  expect(toWhatsAppMarks(markdown)).toBe(shown);
});

test.each([
  ['WhatsApp’s own marks', '*bold*, _italic_, ~struck~ and `code`\n> quoted\n- item'],
  ['an escaped mark, which would be one without its backslash', 'a \\*b\\* \\_a\\_ \\`c\\`\n\\* d'],
  ['a file with underscores', '__init__.py, __init__() and _name_@x.test'],
  ['sums and names', '2*3*4 = 24, 5 * 3 * 2, snake_case_name, a ** b'],
  ['a bare address with underscores', 'see https://x.test/__init__/a_b_c?q=*a*_b_.'],
  ['a fence', '```js\nconst **a** = [b](c);\n* d\n```'],
  ['a fence in a list', '1. a\n      ```\n      **b**\n      ```'],
  ['a fence that never ends', '~~~\n**a**\n\n* b'],
  ['code', '`**a**` and ``a`b`` and `` `a` ``'],
  ['quotes, numbers and indented lines', '> a\n> b\n\n2026. A year\n\n    far in'],
  ['empty lines', 'a\n\n\n\nb'],
  ['a definition', '[a]: https://x.test\n\n[a]'],
  ['a tag and a sign', '<b>a</b> &amp; <not a tag'],
  ['a line below a line', 'Total\n---\nThanks\n===='],
])('when a text has %s, then it stays unchanged', (_what, text) => {
  expect(toWhatsAppMarks(text)).toBe(text);
});

test('when nothing would be left, then the text stays unchanged', () => {
  expect(toWhatsAppMarks('# \n')).toBe('# \n');
});

/** Reproducible: the same texts in every run. */
function randomTexts(count: number, pieces: readonly string[]): string[] {
  let state = 12;
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
  return Array.from({ length: count }, () => Array.from({ length: 1 + next(40) }, () => pieces[next(pieces.length)]).join(''));
}

const PIECES = [
  '**',
  '*',
  '_',
  '__',
  '~~',
  '~',
  '`',
  '``',
  '```',
  '\n',
  '\n\n',
  ' ',
  '  ',
  '#',
  '# ',
  '> ',
  '* ',
  '+ ',
  '1. ',
  '|',
  '|-|',
  '---',
]
  .concat([
    '[',
    ']',
    '(',
    ')',
    '](',
    '![',
    '<',
    '>',
    '\\',
    'https://',
    'x.test/',
    'a_b',
    'word',
    'é',
    '漢字',
    '😀',
    '12',
    '&amp;',
    '<br>',
    '\t',
  ])
  .concat(['é', '👨‍👩‍👧', '"', "'", '.', ':', '![alt](u)', '[t](u)', '**b**', '*i*']);

/** What people read: letters, numbers, symbols. In an address, `&amp;` is read as the character. */
const readable = (text: string): string => text.replaceAll(/<br ?\/?>|&amp;/g, '').replace(/[^\p{L}\p{N}\p{So}]+/gu, '');
const sorted = (text: string): string => [...readable(text)].sort().join('');

describe('20,000 random texts', () => {
  const texts = randomTexts(20_000, PIECES);

  test('when each is converted, then no word is lost, and none is added', () => {
    const lost = texts.filter((text) => sorted(toWhatsAppMarks(text)) !== sorted(text));
    expect(lost.slice(0, 3)).toEqual([]);
  });

  test('when each is converted twice, then no word is lost either, and hardly any text changes again', () => {
    const once = texts.map(toWhatsAppMarks);
    const changed = once.filter((text) => toWhatsAppMarks(text) !== text);
    expect(once.filter((text) => sorted(toWhatsAppMarks(text)) !== sorted(text)).slice(0, 3)).toEqual([]);
    expect(changed.length).toBeLessThan(texts.length * 0.1);
  });
});

test('when a usual text is converted twice, then the second time changes nothing', () => {
  const texts = ['## A\n\n**b** *c*\n* d\n\n|a|b|\n|-|-|\n|c|d|\n\n[t](https://x.test/a_b) ~~x~~ `y`', '***a***\n\n---\n\n> **b**'];
  for (const once of texts.map(toWhatsAppMarks)) expect(toWhatsAppMarks(once)).toBe(once);
});

test.each(
  PIECES.concat(['**a ', '_a', '`a', '``a `', '* a\n', '|a|b|\n|-|-|\n', '![a](', '*_', '\\*', '**a\n', 'https://))))', '[a](b) **c** ']),
)('when 100 kB of %j come, then they take less than two seconds', (piece) => {
  const text = piece.repeat(Math.ceil(100_000 / piece.length));
  const startedAtMs = performance.now();
  toWhatsAppMarks(text);
  expect(performance.now() - startedAtMs).toBeLessThan(2_000);
});
