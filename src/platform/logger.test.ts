import { createLogger, describeError, maskPhoneNumbers } from './logger';

describe('logger', () => {
  test.each([
    ['to +6281110000001 failed', 'to …01 failed'],
    ['6281110000001', '…01'],
    ['conversation-100000000000001-ab12cd', 'conversation-100000000000001-ab12cd'],
    ['port 54321', 'port 54321'],
  ])('when a line contains "%s", then it is logged as "%s"', (text, masked) => {
    expect(maskPhoneNumbers(text)).toBe(masked);
  });

  test('when an error is logged, then its text is masked and its extra fields are left out', () => {
    const lines: string[] = [];
    const logger = createLogger('test', 'info', { write: (line) => lines.push(line) });
    logger.error({ error: Object.assign(new Error('cannot reach 6281110000001'), { detail: 'secret row' }) }, 'failed');
    expect(lines.join()).toContain('…01');
    expect(lines.join()).not.toMatch(/6281110000001|secret row/);
  });

  test('when the thrown value is not an Error, then only its type is logged', () => {
    expect(describeError('text 6281110000001')).toEqual({ name: 'string' });
  });
});
