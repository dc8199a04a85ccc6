/** Exit statuses besides 0 and 1 (an error). */

/** Wrong arguments, as usual in Unix. */
export const EXIT_USAGE = 2;

/** Invalid settings (EX_CONFIG of sysexits.h): restarting does not help. */
export const EXIT_SETTINGS = 78;
