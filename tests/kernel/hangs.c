/* An NSS module as the client of a directory that does not answer: no call ever returns. */
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <unistd.h>

static enum nss_status hang(void)
{
	for (;;)
		pause();
	return NSS_STATUS_UNAVAIL;
}

enum nss_status _nss_hangs_getpwnam_r(const char *name, struct passwd *found, char *buffer,
				      size_t length, int *error)
{
	(void)name, (void)found, (void)buffer, (void)length, (void)error;
	return hang();
}

enum nss_status _nss_hangs_getpwuid_r(uid_t uid, struct passwd *found, char *buffer, size_t length,
				      int *error)
{
	(void)uid, (void)found, (void)buffer, (void)length, (void)error;
	return hang();
}

enum nss_status _nss_hangs_getgrnam_r(const char *name, struct group *found, char *buffer,
				      size_t length, int *error)
{
	(void)name, (void)found, (void)buffer, (void)length, (void)error;
	return hang();
}
