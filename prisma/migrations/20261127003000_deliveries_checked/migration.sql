-- AlterTable
ALTER TABLE "installation" ADD COLUMN     "deliveries_checked_until" TIMESTAMPTZ(3);
