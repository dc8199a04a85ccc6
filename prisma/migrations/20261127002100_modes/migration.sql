-- People beside the bot: who has a conversation, until when the bot is silent, and who wrote a message.
ALTER TYPE "message_outcome" ADD VALUE 'superseded';
CREATE TYPE "message_author" AS ENUM ('model', 'person', 'phone', 'system');

ALTER TABLE "installation" ADD COLUMN "mode" "conversation_mode" NOT NULL DEFAULT 'ai',
ADD COLUMN "mode_until" TIMESTAMPTZ(3);

ALTER TABLE "workspaces" ADD COLUMN "mode" "conversation_mode" NOT NULL DEFAULT 'ai',
ADD COLUMN "mode_until" TIMESTAMPTZ(3);

ALTER TABLE "chatbot_settings" ADD COLUMN "on_new_message" TEXT NOT NULL DEFAULT 'finish',
ADD COLUMN "owner_pause_ms" INTEGER NOT NULL DEFAULT 1800000,
ADD COLUMN "person_wait_ms" INTEGER NOT NULL DEFAULT 600000,
ADD COLUMN "hand_over_texts" JSONB NOT NULL DEFAULT '{}';

ALTER TABLE "conversations" ADD COLUMN "mode_until" TIMESTAMPTZ(3),
ADD COLUMN "held_by" TEXT,
ADD COLUMN "held_since" TIMESTAMPTZ(3),
ADD COLUMN "waiting_since" TIMESTAMPTZ(3),
ADD COLUMN "hand_over" JSONB,
ADD COLUMN "attended_at" TIMESTAMPTZ(3);
CREATE INDEX "conversations_waiting_since_idx" ON "conversations"("waiting_since");
CREATE INDEX "conversations_mode_until_idx" ON "conversations"("mode_until");

ALTER TABLE "messages" ADD COLUMN "is_superseded" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN "author" "message_author",
ADD COLUMN "author_name" TEXT,
ADD COLUMN "withheld_at" TIMESTAMPTZ(3),
ADD COLUMN "quoted_id" UUID,
ADD COLUMN "request_hash" TEXT,
ADD COLUMN "edited_at" TIMESTAMPTZ(3),
ADD COLUMN "deleted_at" TIMESTAMPTZ(3);
