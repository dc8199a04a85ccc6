-- CreateEnum
CREATE TYPE "conversation_mode" AS ENUM ('ai', 'human', 'paused');

-- CreateEnum
CREATE TYPE "message_direction" AS ENUM ('inbound', 'outbound');

-- CreateEnum
CREATE TYPE "message_status" AS ENUM ('received', 'pending', 'sending', 'unconfirmed', 'sent', 'delivered', 'read', 'failed');

-- CreateEnum
CREATE TYPE "message_outcome" AS ENUM ('answered', 'merged', 'human', 'paused', 'ai_disabled', 'unsupported', 'history', 'failed');

-- CreateTable
CREATE TABLE "installation" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "identity_key" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "installation_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "workspaces" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "name" TEXT NOT NULL,
    "kapso_phone_number_id" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "workspaces_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "chatbot_settings" (
    "workspace_id" UUID NOT NULL,
    "chatbot_enabled" BOOLEAN NOT NULL DEFAULT false,
    "ai_enabled" BOOLEAN NOT NULL DEFAULT false,
    "provider_chain" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "model" TEXT,
    "system_prompt" TEXT NOT NULL DEFAULT 'You answer customers of a small business on WhatsApp. Be friendly, short and truthful. Answer in the customer''s language. If you do not know something, say so and offer that a colleague will get back to them.',
    "history_limit" INTEGER NOT NULL DEFAULT 20,
    "quiet_ms" INTEGER NOT NULL DEFAULT 3000,
    "quiet_max_ms" INTEGER NOT NULL DEFAULT 15000,
    "session_timeout_ms" INTEGER NOT NULL DEFAULT 1800000,
    "send_confirm_ms" INTEGER NOT NULL DEFAULT 60000,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "chatbot_settings_pkey" PRIMARY KEY ("workspace_id")
);

-- CreateTable
CREATE TABLE "contacts" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "workspace_id" UUID NOT NULL,
    "contact_key" TEXT NOT NULL,
    "phone" TEXT,
    "business_scoped_user_id" TEXT,
    "name" TEXT,
    "username" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "contacts_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "conversations" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "workspace_id" UUID NOT NULL,
    "contact_id" UUID NOT NULL,
    "workflow_id" TEXT NOT NULL,
    "mode" "conversation_mode" NOT NULL DEFAULT 'ai',
    "needs_attention" BOOLEAN NOT NULL DEFAULT false,
    "attention_reason" TEXT,
    "last_message_at" TIMESTAMPTZ(3),
    "last_message_preview" TEXT,
    "unread_count" INTEGER NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "conversations_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "messages" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "position" BIGSERIAL NOT NULL,
    "workspace_id" UUID NOT NULL,
    "conversation_id" UUID NOT NULL,
    "workflow_id" TEXT,
    "direction" "message_direction" NOT NULL,
    "kind" TEXT NOT NULL,
    "text" TEXT,
    "payload" JSONB,
    "provider_message_id" TEXT,
    "status" "message_status" NOT NULL,
    "outcome" "message_outcome",
    "reply_to_id" UUID,
    "turn_id" UUID,
    "provider" TEXT,
    "model" TEXT,
    "attempts" INTEGER,
    "latency_ms" INTEGER,
    "prompt_tokens" INTEGER,
    "completion_tokens" INTEGER,
    "claimed_at" TIMESTAMPTZ(3),
    "send_attempts" INTEGER NOT NULL DEFAULT 0,
    "failure" TEXT,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "messages_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "message_status_events" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "provider_message_id" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL,
    "error" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "message_status_events_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "parked_messages" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "phone_number_id" TEXT NOT NULL,
    "provider_message_id" TEXT NOT NULL,
    "workflow_id" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "message" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "released_at" TIMESTAMPTZ(3),

    CONSTRAINT "parked_messages_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "workspaces_kapso_phone_number_id_key" ON "workspaces"("kapso_phone_number_id");

-- CreateIndex
CREATE UNIQUE INDEX "contacts_workspace_id_contact_key_key" ON "contacts"("workspace_id", "contact_key");

-- CreateIndex
CREATE UNIQUE INDEX "conversations_contact_id_key" ON "conversations"("contact_id");

-- CreateIndex
CREATE UNIQUE INDEX "conversations_workflow_id_key" ON "conversations"("workflow_id");

-- CreateIndex
CREATE INDEX "conversations_workspace_id_last_message_at_idx" ON "conversations"("workspace_id", "last_message_at" DESC);

-- CreateIndex
CREATE UNIQUE INDEX "messages_position_key" ON "messages"("position");

-- CreateIndex
CREATE UNIQUE INDEX "messages_reply_to_id_key" ON "messages"("reply_to_id");

-- CreateIndex
CREATE INDEX "messages_conversation_id_position_idx" ON "messages"("conversation_id", "position" DESC);

-- CreateIndex
CREATE INDEX "messages_turn_id_idx" ON "messages"("turn_id");

-- CreateIndex
CREATE INDEX "messages_conversation_id_direction_outcome_idx" ON "messages"("conversation_id", "direction", "outcome");

-- CreateIndex
CREATE UNIQUE INDEX "messages_provider_message_id_workspace_id_key" ON "messages"("provider_message_id", "workspace_id");

-- CreateIndex
CREATE UNIQUE INDEX "message_status_events_provider_message_id_status_key" ON "message_status_events"("provider_message_id", "status");

-- CreateIndex
CREATE UNIQUE INDEX "parked_messages_phone_number_id_provider_message_id_key" ON "parked_messages"("phone_number_id", "provider_message_id");

-- AddForeignKey
ALTER TABLE "chatbot_settings" ADD CONSTRAINT "chatbot_settings_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "contacts" ADD CONSTRAINT "contacts_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "conversations" ADD CONSTRAINT "conversations_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "conversations" ADD CONSTRAINT "conversations_contact_id_fkey" FOREIGN KEY ("contact_id") REFERENCES "contacts"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "messages" ADD CONSTRAINT "messages_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "messages" ADD CONSTRAINT "messages_conversation_id_fkey" FOREIGN KEY ("conversation_id") REFERENCES "conversations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "messages" ADD CONSTRAINT "messages_reply_to_id_fkey" FOREIGN KEY ("reply_to_id") REFERENCES "messages"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- The installation's one row. Its key is made here, once, so that every process finds the same one.
INSERT INTO "installation" ("id", "identity_key")
VALUES (1, replace(gen_random_uuid()::text, '-', '') || replace(gen_random_uuid()::text, '-', ''));
