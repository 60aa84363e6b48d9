/* An NSS module as some directories' clients are: its first call starts a thread, which allocates
 * without end and nearly always holds the module's lock; every call takes that lock, and so does the
 * end of the process. In a child of a fork the thread is gone and the lock is held for ever. */
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *work(void *unused)
{
	void *kept[64] = {0};
	(void)unused;
	for (unsigned turn = 0;; turn++) {
		pthread_mutex_lock(&lock);
		for (int i = 0; i < 100000; i++) {
			void **one = &kept[(turn + i) % 64];
			free(*one);
			*one = malloc(16 + (i * 37) % 5000);
		}
		pthread_mutex_unlock(&lock);
		/* A mutex is not fair: without this nobody else ever had it. */
		usleep(20);
	}
	return NULL;
}

static void start(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, work, NULL);
}

static void take_the_lock(void)
{
	pthread_once(&once, start);
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void end(void)
{
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
}

static enum nss_status tess(struct passwd *found, char *buffer, size_t length, int *error)
{
	static const char text[] = "tess\0x\0/\0/bin/sh";
	if (length < sizeof text) {
		*error = ERANGE;
		return NSS_STATUS_TRYAGAIN;
	}
	memcpy(buffer, text, sizeof text);
	found->pw_name = buffer;
	found->pw_passwd = buffer + 5;
	found->pw_gecos = found->pw_dir = buffer + 7;
	found->pw_shell = buffer + 9;
	found->pw_uid = found->pw_gid = 4100;
	return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_threads_getpwnam_r(const char *name, struct passwd *found, char *buffer,
					size_t length, int *error)
{
	take_the_lock();
	return strcmp(name, "tess") ? NSS_STATUS_NOTFOUND : tess(found, buffer, length, error);
}

enum nss_status _nss_threads_getpwuid_r(uid_t uid, struct passwd *found, char *buffer,
					size_t length, int *error)
{
	take_the_lock();
	return uid != 4100 ? NSS_STATUS_NOTFOUND : tess(found, buffer, length, error);
}

enum nss_status _nss_threads_getgrnam_r(const char *name, struct group *found, char *buffer,
					size_t length, int *error)
{
	(void)name, (void)found, (void)buffer, (void)length, (void)error;
	take_the_lock();
	return NSS_STATUS_NOTFOUND;
}
