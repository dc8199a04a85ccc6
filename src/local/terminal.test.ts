import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

test('when the reader of its output has seen enough, then a command ends without an error', async () => {
  const script = `const { endWithReader, say } = require(${JSON.stringify(join(__dirname, 'terminal.ts'))});
    endWithReader();
    setInterval(() => say('a line'), 1);`;
  const command = spawn(process.execPath, ['--import', 'tsx', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  command.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  await once(command.stdout, 'data');
  command.stdout.destroy();
  const [code] = await once(command, 'exit');
  expect({ code, errors }).toEqual({ code: 0, errors: '' });
}, 30_000);
