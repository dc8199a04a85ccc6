-- Attention has reasons: a reply clears only what it cures.
ALTER TABLE "conversations" ADD COLUMN "attention" JSONB NOT NULL DEFAULT '[]';
UPDATE "conversations" SET "attention" = jsonb_build_array(jsonb_build_object('kind', 'turn_failed', 'text', COALESCE("attention_reason", 'asked for a person'),
  'since', to_char("updated_at" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))
WHERE "needs_attention";

-- Nobody knows whether the reply went out.
ALTER TYPE "message_outcome" ADD VALUE 'unconfirmed';
