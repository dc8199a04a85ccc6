-- Every inbound message is in exactly one place: it has an outcome, or it is pending (in the record, or parked until
-- a workspace has its number). One row; `balanced` is the invariant.
SELECT inbound + parked AS total,
       answered, merged, human, paused, ai_disabled, unsupported, history, failed, unconfirmed, too_old, loop, "group", superseded,
       pending + parked AS pending,
       inbound = answered + merged + human + paused + ai_disabled + unsupported + history + failed + unconfirmed + too_old + loop + "group" + superseded + pending
         AND replies_per_answer_ok AS balanced
FROM (
  SELECT count(*) AS inbound,
         count(*) FILTER (WHERE outcome = 'answered') AS answered,
         count(*) FILTER (WHERE outcome = 'merged') AS merged,
         count(*) FILTER (WHERE outcome = 'human') AS human,
         count(*) FILTER (WHERE outcome = 'paused') AS paused,
         count(*) FILTER (WHERE outcome = 'ai_disabled') AS ai_disabled,
         count(*) FILTER (WHERE outcome = 'unsupported') AS unsupported,
         count(*) FILTER (WHERE outcome = 'history') AS history,
         count(*) FILTER (WHERE outcome = 'failed') AS failed,
         count(*) FILTER (WHERE outcome = 'unconfirmed') AS unconfirmed,
         count(*) FILTER (WHERE outcome = 'too_old') AS too_old,
         count(*) FILTER (WHERE outcome = 'loop') AS loop,
         count(*) FILTER (WHERE outcome = 'group') AS "group",
         count(*) FILTER (WHERE outcome = 'superseded') AS superseded,
         count(*) FILTER (WHERE outcome IS NULL) AS pending,
         -- An answered message has a reply of which WhatsApp accepted all parts; a merged message belongs to a turn with such a reply.
         COALESCE(bool_and(CASE replace(outcome::text, 'superseded', 'merged')
           WHEN 'answered' THEN EXISTS (SELECT 1 FROM messages r WHERE r.reply_to_id = m.id AND r.status IN ('sent', 'delivered', 'read')
             AND NOT EXISTS (SELECT 1 FROM messages p WHERE p.part_of_id = r.id AND p.status NOT IN ('sent', 'delivered', 'read')))
           WHEN 'merged' THEN EXISTS (SELECT 1 FROM messages r WHERE r.reply_to_id = m.turn_id AND m.turn_id <> m.id AND r.status IN ('sent', 'delivered', 'read')
             AND NOT EXISTS (SELECT 1 FROM messages p WHERE p.part_of_id = r.id AND p.status NOT IN ('sent', 'delivered', 'read')))
           WHEN 'unconfirmed' THEN EXISTS (SELECT 1 FROM messages r LEFT JOIN messages p ON p.part_of_id = r.id
             WHERE r.reply_to_id = m.turn_id AND 'unconfirmed' IN (r.status, p.status))
           ELSE true END), true) AS replies_per_answer_ok
  FROM messages m WHERE direction = 'inbound'
) counted,
(SELECT count(*) AS parked FROM parked_messages p WHERE released_at IS NULL) waiting;
