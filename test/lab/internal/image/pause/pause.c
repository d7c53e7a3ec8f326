/* SPDX-License-Identifier: Apache-2.0 */
/* Copyright The Sealane Authors */

/* The first process of a pod: adopts and reaps what its containers leave behind, and ends when told to. */

#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t wanted;
	int signo;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGCHLD);
	sigaddset(&wanted, SIGINT);
	sigaddset(&wanted, SIGTERM);
	/* Blocked and then waited for: no signal can come between two steps. */
	if (sigprocmask(SIG_BLOCK, &wanted, NULL) != 0)
		return 1;
	while (sigwait(&wanted, &signo) == 0) {
		if (signo != SIGCHLD)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return 1;
}
