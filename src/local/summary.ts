/** The summary that `npm start` prints when everything is running. */
import type { Finding } from './checks/finding';
import { say, sayRow } from './terminal';

interface Summary {
  apiUrl: string;
  temporalUiUrl: string | undefined;
  simulatesWhatsApp: boolean;
  simulatesCalls: boolean;
  apiKey: string;
  simulated: string[];
  off: string[];
  /** Undefined unless calls are real. */
  calls: Finding | undefined;
  /** Findings about the models and WhatsApp; the last one says whether messages are answered. */
  findings: Finding[];
}

/** Prints the summary. */
export function saySummary(summary: Summary): void {
  const { apiUrl, temporalUiUrl, simulatesWhatsApp, simulatesCalls, apiKey, simulated, off, calls, findings } = summary;
  say('');
  say('Parley is ready.');
  sayRow('API', `${apiUrl} (documentation: ${apiUrl}/docs)`);
  sayRow('API key', apiKey);
  if (temporalUiUrl !== undefined) sayRow('Temporal UI', temporalUiUrl);
  const replies = findings.at(-1);
  sayRow('Replies', replies?.text ?? '');
  for (const { subject, level, text } of findings) {
    if (level === 'warning') sayRow(subject, `warning: ${text}`);
    else if (level === 'ok' && subject === 'Models') sayRow(subject, text);
  }
  if (calls) sayRow('Calls', calls.level === 'ok' ? calls.text : `incomplete: ${calls.text}`);
  sayRow('Simulated', simulated.length > 0 ? simulated.join('; ') : 'nothing');
  if (off.length > 0) sayRow('Off', off.join('; '));
  if (simulatesWhatsApp) sayRow('Try it', '`npm run chat` in another terminal: write as a customer');
  if (simulatesCalls) sayRow('', '`npm run call -- +15550100`: a simulated voice call');
  if (replies?.level === 'problem' || (calls && calls.level !== 'ok'))
    sayRow('Check', '`npm run doctor`: checks the set-up, and says what to do');
  sayRow('Stop', 'Ctrl-C');
}
