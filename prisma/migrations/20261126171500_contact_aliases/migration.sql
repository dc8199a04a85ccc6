-- CreateEnum
CREATE TYPE "alias_kind" AS ENUM ('phone', 'user_id');

-- DropIndex
DROP INDEX "contacts_phone_idx";

-- CreateTable
CREATE TABLE "contact_aliases" (
    "kind" "alias_kind" NOT NULL,
    "value" TEXT NOT NULL,
    "workspace_id" UUID NOT NULL,
    "contact_id" UUID NOT NULL,
    "stated_at" TIMESTAMPTZ(3),

    CONSTRAINT "contact_aliases_pkey" PRIMARY KEY ("kind","value","workspace_id")
);

-- CreateTable
CREATE TABLE "merged_conversations" (
    "id" UUID NOT NULL,
    "conversation_id" UUID NOT NULL,
    "merged_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "merged_conversations_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "contact_aliases_contact_id_idx" ON "contact_aliases"("contact_id");

-- CreateIndex
CREATE INDEX "merged_conversations_conversation_id_idx" ON "merged_conversations"("conversation_id");

-- AddForeignKey
ALTER TABLE "contact_aliases" ADD CONSTRAINT "contact_aliases_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "contact_aliases" ADD CONSTRAINT "contact_aliases_contact_id_fkey" FOREIGN KEY ("contact_id") REFERENCES "contacts"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "merged_conversations" ADD CONSTRAINT "merged_conversations_conversation_id_fkey" FOREIGN KEY ("conversation_id") REFERENCES "conversations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Backfill: the aliases of existing contacts, with the matching keys of src/platform/phone.ts.
-- If two contacts have the same alias, the one that wrote last gets it, without a time: the next message decides who it belongs to.
INSERT INTO "contact_aliases" ("kind", "value", "workspace_id", "contact_id", "stated_at")
SELECT DISTINCT ON (a."kind", a."value", p."workspace_id") a."kind"::"alias_kind", a."value", p."workspace_id", p."id",
  CASE WHEN count(*) OVER (PARTITION BY a."kind", a."value", p."workspace_id") = 1 THEN p."created_at" END
FROM "contacts" p
LEFT JOIN "conversations" c ON c."contact_id" = p."id"
CROSS JOIN LATERAL (VALUES
  ('phone', CASE
    WHEN p."phone" ~ '^521?\d{10}$' THEN regexp_replace(p."phone", '^521?(\d{10})$', '52\1')
    WHEN p."phone" ~ '^549?\d{10}$' THEN regexp_replace(p."phone", '^549?(\d{10})$', '54\1')
    WHEN p."phone" ~ '^55[1-9]{2}9?[6-9]\d{7}$' THEN regexp_replace(p."phone", '^55([1-9]{2})9?([6-9]\d{7})$', '55\1\2')
    WHEN p."phone" ~ '^229(01)?\d{8}$' THEN regexp_replace(p."phone", '^229(?:01)?(\d{8})$', '229\1')
    ELSE p."phone" END),
  ('user_id', p."business_scoped_user_id")
) a ("kind", "value")
WHERE a."value" IS NOT NULL
ORDER BY a."kind", a."value", p."workspace_id", c."last_message_at" DESC NULLS LAST, p."created_at" DESC, p."id";
