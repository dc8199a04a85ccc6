-- AlterTable
ALTER TABLE "messages" ADD COLUMN     "timeline_at" TIMESTAMPTZ(3);

-- CreateTable
CREATE TABLE "history_syncs" (
    "workspace_id" UUID NOT NULL,
    "sync_id" UUID NOT NULL,
    "status" TEXT NOT NULL,
    "phase" TEXT NOT NULL,
    "cursor" TEXT,
    "until" TIMESTAMPTZ(3) NOT NULL,
    "conversations" INTEGER NOT NULL DEFAULT 0,
    "messages" INTEGER NOT NULL DEFAULT 0,
    "imported" INTEGER NOT NULL DEFAULT 0,
    "unreadable" INTEGER NOT NULL DEFAULT 0,
    "problem" TEXT,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "history_syncs_pkey" PRIMARY KEY ("workspace_id")
);

-- AddForeignKey
ALTER TABLE "history_syncs" ADD CONSTRAINT "history_syncs_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- The order of a conversation's timeline. Prisma's schema cannot express it.
CREATE INDEX "messages_timeline_idx" ON "messages"("conversation_id", COALESCE("timeline_at", "created_at") DESC, "position" DESC);
