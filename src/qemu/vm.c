/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/vm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/text.h"
#include "base/util.h"

int vm_strings_add(struct vm_strings *list, const char *fmt, ...)
{
	va_list args;
	char **grown;
	char *item;
	int n;

	grown = reallocarray(list->items, list->n_items + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	list->items = grown;
	va_start(args, fmt);
	n = vasprintf(&item, fmt, args);
	va_end(args);
	if (n < 0)
		return -ENOMEM;
	list->items[list->n_items++] = item;
	return 0;
}

void vm_strings_deinit(struct vm_strings *list)
{
	size_t i;

	for (i = 0; i < list->n_items; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct vm_strings){ 0 };
}

static int bad_answer(const char *command)
{
	return log_errno(-EPROTO, "qmp: %s: unexpected answer", command);
}

int vm_query_status(struct qmp *qmp, struct vm_status *status)
{
	_cleanup_json_ json_t *result = NULL;
	const char *state;
	int r, running;

	r = qmp_call(qmp, "query-status", NULL, &result);
	if (r)
		return r;
	if (json_unpack(result, "{s:b, s:s}", "running", &running, "status",
			&state))
		return bad_answer("query-status");
	status->running = running;
	snprintf(status->state, sizeof(status->state), "%s", state);
	text_make_printable(status->state);
	return 0;
}

int vm_stop(struct qmp *qmp)
{
	return qmp_execute(qmp, "stop", NULL, NULL);
}

int vm_cont(struct qmp *qmp, unsigned timeout_ms)
{
	int r;

	qmp_set_timeout(qmp, timeout_ms);
	r = qmp_execute(qmp, "cont", NULL, NULL);
	/* When QEMU said no, or does not answer, asking again won't help; when
	 * the dialogue is broken, the connection may still carry a command. */
	if (r && r != -EREMOTEIO && r != -ETIMEDOUT && qmp_fd(qmp) >= 0 &&
	    !qmp_rescue_cont(qmp_fd(qmp), timeout_ms))
		return 0;
	return r;
}

int vm_check_state(const struct vm_status *status)
{
	static const char *const good[] = { "running", "paused", "prelaunch" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(good); i++)
		if (!strcmp(status->state, good[i]))
			return 0;
	log_error("qemu: the VM is in state \"%s\"; a snapshot needs one that"
		  " runs or is paused",
		  status->state);
	return RESULT_UNSUPPORTED;
}

int vm_query_machine(struct qmp *qmp, char **machine)
{
	static const char suffix[] = "-machine";
	_cleanup_json_ json_t *result = NULL;
	const char *type;
	size_t len;
	int r;

	r = qmp_call(
		qmp, "qom-get",
		json_pack("{s:s, s:s}", "path", "/machine", "property", "type"),
		&result);
	if (r)
		return r;
	type = json_string_value(result);
	len = type ? strlen(type) : 0;
	if (len < sizeof(suffix) ||
	    strcmp(type + len - (sizeof(suffix) - 1), suffix))
		return bad_answer("qom-get /machine type");
	*machine = strndup(type, len - (sizeof(suffix) - 1));
	return *machine ? 0 : -ENOMEM;
}

/* MigrationStatus, qapi/migration.json: those in which nothing goes on. */
static bool is_idle_migration(const char *status)
{
	static const char *const idle[] = { "none", "completed", "failed",
					    "cancelled" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(idle); i++)
		if (!strcmp(status, idle[i]))
			return true;
	return false;
}

static int list_migration(struct qmp *qmp, struct vm_strings *reasons)
{
	_cleanup_json_ json_t *result = NULL;
	const char *status;
	json_t *reason;
	size_t i;
	int r;

	r = qmp_call(qmp, "query-migrate", NULL, &result);
	if (r)
		return r;
	status = json_string_value(json_object_get(result, "status"));
	if (status && !is_idle_migration(status))
		r = vm_strings_add(reasons,
				   "a migration or background snapshot is"
				   " under way (status \"%s\")",
				   status);
	json_array_foreach(json_object_get(result, "blocked-reasons"), i,
			   reason)
	{
		if (!r && json_is_string(reason))
			r = vm_strings_add(reasons, "QEMU: %s",
					   json_string_value(reason));
	}
	return r;
}

/* What devices say about themselves by their QOM type's first letters. */
struct trait {
	const char *prefix;
	const char *reason;
};

/* "child<TYPE>" of a QOM property; NULL for others. */
static const char *child_type(const json_t *property)
{
	const char *type = json_string_value(json_object_get(property, "type"));

	return type && !strncmp(type, "child<", 6) ? type + 6 : NULL;
}

static int match_device(const json_t *property, const struct trait *traits,
			size_t n_traits, struct vm_strings *reasons)
{
	const char *name = json_string_value(json_object_get(property, "name"));
	const char *type = child_type(property);
	size_t i;

	for (i = 0; type && i < n_traits; i++)
		if (!strncmp(type, traits[i].prefix, strlen(traits[i].prefix)))
			return vm_strings_add(reasons, "device %s (%.*s): %s",
					      name ?: "?",
					      (int)strcspn(type, ">"), type,
					      traits[i].reason);
	return 0;
}

/*
 * Goes through the devices that a user added, by -device or device_add: QOM
 * has them all in these two containers, with their types. `info qtree` would
 * say the same as text, query-pci only the PCI ids.
 */
static int match_devices(struct qmp *qmp, const struct trait *traits,
			 size_t n_traits, struct vm_strings *reasons)
{
	static const char *const containers[] = { "/machine/peripheral",
						  "/machine/peripheral-anon" };
	size_t i, k;
	int r;

	for (k = 0; k < ARRAY_SIZE(containers); k++) {
		_cleanup_json_ json_t *result = NULL;
		json_t *property;

		r = qmp_call(qmp, "qom-list",
			     json_pack("{s:s}", "path", containers[k]),
			     &result);
		if (r)
			return r;
		if (!json_is_array(result))
			return bad_answer("qom-list");
		json_array_foreach(result, i, property)
		{
			r = match_device(property, traits, n_traits, reasons);
			if (r)
				return r;
		}
	}
	return 0;
}

int vm_list_blockers(struct qmp *qmp, struct vm_strings *reasons)
{
	/* hw/virtio/virtio-mem.c registers it as early state, which a stream
	 * carries before RAM and xen-save-devices-state does not order so. */
	static const struct trait traits[] = {
		{ "virtio-mem", "its state belongs before RAM in a stream,"
				" which is not supported yet" },
	};
	int r;

	r = list_migration(qmp, reasons);
	if (!r && qmp_version_at_least(qmp, 8, 0))
		r = match_devices(qmp, traits, ARRAY_SIZE(traits), reasons);
	return r;
}

/*
 * -netdev vhost-user and vhost-vdpa sit behind a plain virtio-net device, and
 * no QMP command lists network backends. `info network` prints them as
 * "NAME: index=0,type=vhost-user,…" (net/net.c, print_net_client()).
 */
static int match_netdevs(struct qmp *qmp, const struct trait *type,
			 struct vm_strings *reasons)
{
	_cleanup_free_ char *text = NULL;
	const char *hit;
	int r;

	r = qmp_human(qmp, "info network", &text);
	if (r)
		return log_errno(r, "qmp: info network: %s", qmp_error(qmp));
	for (hit = strstr(text, "type="); !r && hit;
	     hit = strstr(hit, "type=")) {
		hit += strlen("type=");
		if (!strncmp(hit, type->prefix, strlen(type->prefix)))
			r = vm_strings_add(reasons, "netdev of type %s: %s",
					   type->prefix, type->reason);
	}
	return r;
}

int vm_list_dma_writers(struct qmp *qmp, struct vm_strings *reasons)
{
	static const struct trait traits[] = {
		{ "vfio-", "a host device writes guest memory by DMA" },
		{ "vhost-vdpa-", "its device writes guest memory by DMA" },
		{ "pvrdma", "the network card writes guest memory by RDMA" },
	};
	static const struct trait netdev = {
		"vhost-vdpa", "its device writes guest memory by DMA"
	};
	int r = match_devices(qmp, traits, ARRAY_SIZE(traits), reasons);

	return r ?: match_netdevs(qmp, &netdev, reasons);
}

int vm_list_backends(struct qmp *qmp, struct vm_strings *reasons)
{
	static const struct trait traits[] = {
		{ "vhost-user-", "its backend, another process, writes guest"
				 " memory" },
		{ "x-pci-proxy-dev", "another process emulates it and writes"
				     " guest memory" },
	};
	static const struct trait netdev = {
		"vhost-user", "its backend, another process, writes guest"
			      " memory"
	};
	int r = match_devices(qmp, traits, ARRAY_SIZE(traits), reasons);

	return r ?: match_netdevs(qmp, &netdev, reasons);
}
