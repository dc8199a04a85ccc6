import { createApiMetrics, createWorkerMetrics } from './metrics';

describe('the API', () => {
  test('when a label value is unknown, then it counts as other', async () => {
    const metrics = createApiMetrics();
    metrics.webhookAnswered({ source: 'vapi', type: 'status-update', result: 'taken', seconds: 0.01 });
    metrics.webhookAnswered({ source: 'vapi', type: '+15550100', result: 'taken', seconds: 0.01 });
    metrics.webhookAnswered({ source: 'kapso', type: 'message', result: 'taken', seconds: 0.01 });
    metrics.requestAnswered({ method: 'PROPFIND', route: 'other', status: 404, seconds: 0.01 });
    metrics.setRecordCounts({
      parked: 2,
      withoutOutcome: 3,
      spooled: { waiting: 7, oldestSeconds: 8.5 },
      conversationsInNeed: 5,
      calls: [
        { status: 'ended', outcome: 'completed', count: 4, inNeed: 1 },
        { status: 'queued', outcome: null, count: 1, inNeed: 0 },
        { status: 'brand-new', outcome: '+15550100', count: 1, inNeed: 1 },
        { status: 'brand-newer', outcome: '+15550101', count: 1, inNeed: 0 },
      ],
      deadLetters: [
        { reason: 'no_sender', count: 6 },
        { reason: '+15550102', count: 1 },
      ],
    });
    const text = await metrics.text();
    expect(text).toContain('parley_webhooks_total{source="vapi",type="status-update",result="taken"} 1');
    expect(text).toContain('parley_webhooks_total{source="vapi",type="other",result="taken"} 1');
    expect(text).toContain('parley_webhooks_total{source="kapso",type="message",result="taken"} 1');
    expect(text).toContain('parley_http_request_seconds_count{method="other",route="other",status="404"} 1');
    expect(text).toContain('parley_parked_messages 2');
    expect(text).toContain('parley_messages_without_outcome 3');
    expect(text).toContain('parley_spooled_requests 7');
    expect(text).toContain('parley_spool_oldest_seconds 8.5');
    expect(text).toContain('parley_calls{status="ended",outcome="completed"} 4');
    expect(text).toContain('parley_calls{status="queued",outcome="none"} 1');
    expect(text).toContain('parley_calls{status="other",outcome="other"} 2');
    expect(text).toContain('parley_needing_attention{kind="conversation"} 5');
    expect(text).toContain('parley_needing_attention{kind="call"} 2');
    expect(text).toContain('parley_dead_letters{reason="no_sender"} 6');
    expect(text).toContain('parley_dead_letters{reason="other"} 1');
    expect(text).toContain('process_cpu_seconds_total');
    expect(text).not.toContain('15550');
  });

  test('when the database cannot be read, then its gauges have no value rather than a stale one', async () => {
    const metrics = createApiMetrics();
    const calls = [{ status: 'ended', outcome: 'completed', count: 4, inNeed: 1 }];
    const deadLetters = [{ reason: 'no_sender', count: 6 }];
    metrics.setRecordCounts({
      parked: 2,
      withoutOutcome: 3,
      spooled: { waiting: 7, oldestSeconds: 8 },
      conversationsInNeed: 5,
      calls,
      deadLetters,
    });
    metrics.setRecordCounts(undefined);
    const text = await metrics.text();
    expect(text).toContain('parley_record_readable 0');
    expect(text).not.toMatch(
      /^parley_(parked_messages|spooled_requests|spool_oldest_seconds|messages_without_outcome|needing_attention|calls|dead_letters)[ {]/m,
    );
  });
});

describe('the worker', () => {
  test('when calls and callbacks end, then they are counted, and Temporal’s metrics are appended', async () => {
    const metrics = createWorkerMetrics(async () => '# TYPE temporal_request counter\ntemporal_request 1\n');
    metrics.callConcluded({ outcome: 'completed', durationSeconds: 42 });
    metrics.callConcluded({ outcome: 'no_answer', durationSeconds: null });
    metrics.callbackTried('delivered');
    metrics.sendTried('sent');
    metrics.modelAsked({ provider: 'openai', result: 'ModelError.Timeout', seconds: 30 });
    const text = await metrics.text();
    expect(text).toContain('parley_calls_total{outcome="completed"} 1');
    expect(text).toContain('parley_calls_total{outcome="no_answer"} 1');
    expect(text).toContain('parley_call_duration_seconds_sum{outcome="completed"} 42');
    expect(text).not.toContain('parley_call_duration_seconds_sum{outcome="no_answer"}');
    expect(text).toContain('parley_callbacks_total{result="delivered"} 1');
    expect(text).toContain('parley_sends_total{result="sent"} 1');
    expect(text).toContain('parley_model_calls_total{provider="openai",result="ModelError.Timeout"} 1');
    expect(text).toMatch(/\n# TYPE temporal_request counter\ntemporal_request 1\n$/);
  });

  test('when Temporal’s metrics are unavailable, then the others are still reported', async () => {
    const metrics = createWorkerMetrics(() => Promise.reject(new Error('away')));
    metrics.sendTried('sent');
    expect(await metrics.text()).toContain('parley_sends_total{result="sent"} 1');
  });
});
