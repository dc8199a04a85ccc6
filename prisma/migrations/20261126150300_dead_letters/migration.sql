-- CreateTable
CREATE TABLE "dead_letters" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "source" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "detail" TEXT NOT NULL,
    "event" TEXT,
    "phone_number_id" TEXT,
    "provider_message_id" TEXT,
    "workflow_id" TEXT,
    "conversation_id" UUID,
    "body" JSONB,
    "raw_body" BYTEA,
    "is_truncated" BOOLEAN NOT NULL DEFAULT false,
    "digest" TEXT NOT NULL,
    "occurrences" INTEGER NOT NULL DEFAULT 1,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_seen_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "replayed_at" TIMESTAMPTZ(3),

    CONSTRAINT "dead_letters_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "dead_letters_digest_key" ON "dead_letters"("digest");

-- CreateIndex
CREATE INDEX "dead_letters_created_at_id_idx" ON "dead_letters"("created_at" DESC, "id" DESC);

-- CreateIndex
CREATE INDEX "dead_letters_replayed_at_idx" ON "dead_letters"("replayed_at");

-- CreateIndex
CREATE INDEX "dead_letters_last_seen_at_idx" ON "dead_letters"("last_seen_at");
