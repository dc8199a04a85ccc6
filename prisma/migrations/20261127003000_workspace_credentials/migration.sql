-- AlterTable
ALTER TABLE "dead_letters" ADD COLUMN     "workspace_id" UUID;

-- AlterTable
ALTER TABLE "workspaces" ADD COLUMN     "time_zone" TEXT,
ADD COLUMN     "vapi_assistant_id" TEXT,
ADD COLUMN     "version" INTEGER NOT NULL DEFAULT 0,
ALTER COLUMN "kapso_phone_number_id" DROP NOT NULL;

-- CreateTable
CREATE TABLE "workspace_credentials" (
    "workspace_id" UUID NOT NULL,
    "field" TEXT NOT NULL,
    "encrypted" TEXT NOT NULL,
    "last_fours" TEXT[],
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "workspace_credentials_pkey" PRIMARY KEY ("workspace_id","field")
);

-- AddForeignKey
ALTER TABLE "workspace_credentials" ADD CONSTRAINT "workspace_credentials_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;
