-- A reply that is too long for one message has several rows; the later ones name the first.
ALTER TABLE "messages" ADD COLUMN "part" INTEGER NOT NULL DEFAULT 1,
ADD COLUMN "part_of_id" UUID;
CREATE UNIQUE INDEX "messages_part_of_id_part_key" ON "messages"("part_of_id", "part");
ALTER TABLE "messages" ADD CONSTRAINT "messages_part_of_id_fkey" FOREIGN KEY ("part_of_id") REFERENCES "messages"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Messages that are deliberately not answered.
ALTER TYPE "message_outcome" ADD VALUE 'too_old';
ALTER TYPE "message_outcome" ADD VALUE 'loop';
ALTER TYPE "message_outcome" ADD VALUE 'group';
