/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/domain_xml.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/xpath.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/dynlib.h"

#define QEMU_NAMESPACE "http://libvirt.org/schemas/domain/qemu/1.0"

/* What is used of libxml2. */
#define SYMBOLS(X)                \
	X(xmlReadMemory)          \
	X(xmlFreeDoc)             \
	X(xmlDocGetRootElement)   \
	X(xmlDocDumpMemory)       \
	X(xmlXPathNewContext)     \
	X(xmlXPathEvalExpression) \
	X(xmlXPathFreeObject)     \
	X(xmlXPathFreeContext)    \
	X(xmlNodeGetContent)      \
	X(xmlNodeSetContent)      \
	X(xmlNodeAddContent)      \
	X(xmlGetProp)             \
	X(xmlSetProp)             \
	X(xmlUnsetProp)           \
	X(xmlNewChild)            \
	X(xmlNewNs)               \
	X(xmlSearchNsByHref)      \
	X(xmlUnlinkNode)          \
	X(xmlFreeNode)

struct library {
#define MEMBER(name) __typeof__(name) *name;
	SYMBOLS(MEMBER)
#undef MEMBER
};

struct domain_xml {
	struct library lib;
	char *subject;
	xmlDocPtr doc;
};

static int load_library(struct library *lib)
{
	/* The second is libxml2 2.14. */
	static const char *const files[] = { "libxml2.so.2", "libxml2.so.16",
					     NULL };
#define SYMBOL(name) { #name, &lib->name },
	const struct dynlib_symbol symbols[] = { SYMBOLS(SYMBOL) };
#undef SYMBOL
	const char *why = dynlib_load(files, symbols, ARRAY_SIZE(symbols));

	if (!why)
		return 0;
	log_error(
		"--domain: libxml2 cannot be loaded: %s; install it (Debian: libxml2)",
		why);
	return RESULT_UNSUPPORTED;
}

int domain_xml_parse(const char *text, const char *subject,
		     struct domain_xml **out)
{
	_cleanup_domain_xml_ struct domain_xml *xml = calloc(1, sizeof(*xml));
	xmlNodePtr root;
	int r;

	if (!xml || !(xml->subject = strdup(subject)))
		return -ENOMEM;
	r = load_library(&xml->lib);
	if (r)
		return r;
	xml->doc = xml->lib.xmlReadMemory(text, (int)strlen(text), NULL, NULL,
					  XML_PARSE_NONET | XML_PARSE_NOERROR |
						  XML_PARSE_NOWARNING);
	root = xml->doc ? xml->lib.xmlDocGetRootElement(xml->doc) : NULL;
	if (!root) {
		log_error("%s: libvirt's XML in it is none", subject);
		return RESULT_FAILED;
	}
	*out = steal_ptr(xml);
	return 0;
}

struct domain_xml *domain_xml_free(struct domain_xml *xml)
{
	if (!xml)
		return NULL;
	if (xml->doc)
		xml->lib.xmlFreeDoc(xml->doc);
	free(xml->subject);
	free(xml);
	return NULL;
}

char *domain_xml_print(struct domain_xml *xml)
{
	xmlChar *text = NULL;
	int len;

	/* libxml2's memory is malloc()'s. */
	xml->lib.xmlDocDumpMemory(xml->doc, &text, &len);
	return (char *)text;
}

/* The nodes that a path leads to; those of `list` are to be freed. */
struct nodes {
	xmlNodePtr *list;
	size_t n;
};

static void nodes_deinit(struct nodes *nodes)
{
	free(nodes->list);
}

#define _cleanup_nodes_ _cleanup_(nodes_deinit)

static struct nodes find(struct domain_xml *xml, const char *path)
{
	xmlXPathContextPtr context = xml->lib.xmlXPathNewContext(xml->doc);
	struct nodes nodes = {};
	xmlXPathObjectPtr found;

	if (!context)
		return nodes;
	found = xml->lib.xmlXPathEvalExpression((const xmlChar *)path, context);
	if (found && found->nodesetval && found->nodesetval->nodeNr > 0) {
		nodes.n = (size_t)found->nodesetval->nodeNr;
		nodes.list = calloc(nodes.n, sizeof(xmlNodePtr));
		if (!nodes.list)
			nodes.n = 0;
		else
			memcpy(nodes.list, found->nodesetval->nodeTab,
			       nodes.n * sizeof(xmlNodePtr));
	}
	if (found)
		xml->lib.xmlXPathFreeObject(found);
	xml->lib.xmlXPathFreeContext(context);
	return nodes;
}

static size_t count(struct domain_xml *xml, const char *path)
{
	_cleanup_nodes_ struct nodes nodes = find(xml, path);

	return nodes.n;
}

/* To be freed; NULL: nothing is there. */
static char *get_text(struct domain_xml *xml, const char *path)
{
	_cleanup_nodes_ struct nodes nodes = find(xml, path);

	return nodes.n ? (char *)xml->lib.xmlNodeGetContent(nodes.list[0])
		       : NULL;
}

static void set_text(struct domain_xml *xml, const char *path, const char *text)
{
	_cleanup_nodes_ struct nodes nodes = find(xml, path);

	for (size_t i = 0; i < nodes.n; i++) {
		xml->lib.xmlNodeSetContent(nodes.list[i], NULL);
		xml->lib.xmlNodeAddContent(nodes.list[i],
					   (const xmlChar *)text);
	}
}

static void set(struct domain_xml *xml, xmlNodePtr node, const char *name,
		const char *value)
{
	xml->lib.xmlSetProp(node, (const xmlChar *)name,
			    (const xmlChar *)value);
}

static void unset(struct domain_xml *xml, xmlNodePtr node, const char *name)
{
	xml->lib.xmlUnsetProp(node, (const xmlChar *)name);
}

static char *get(struct domain_xml *xml, xmlNodePtr node, const char *name)
{
	return (char *)xml->lib.xmlGetProp(node, (const xmlChar *)name);
}

static bool is(struct domain_xml *xml, xmlNodePtr node, const char *name,
	       const char *value)
{
	_cleanup_free_ char *found = get(xml, node, name);

	return found && !strcmp(found, value);
}

static void drop(struct domain_xml *xml, xmlNodePtr node)
{
	xml->lib.xmlUnlinkNode(node);
	xml->lib.xmlFreeNode(node);
}

/* What the path leads to, none of it within another. */
static void drop_all(struct domain_xml *xml, const char *path)
{
	_cleanup_nodes_ struct nodes nodes = find(xml, path);

	for (size_t i = 0; i < nodes.n; i++)
		drop(xml, nodes.list[i]);
}

static xmlNodePtr child(xmlNodePtr node, const char *name)
{
	for (xmlNodePtr at = node->children; at; at = at->next)
		if (at->type == XML_ELEMENT_NODE &&
		    !strcmp((const char *)at->name, name))
			return at;
	return NULL;
}

static void drop_child(struct domain_xml *xml, xmlNodePtr node,
		       const char *name)
{
	xmlNodePtr found = child(node, name);

	if (found)
		drop(xml, found);
}

char *domain_xml_get_name(struct domain_xml *xml)
{
	return get_text(xml, "/domain/name");
}

static int random_bytes(uint8_t *bytes, size_t len)
{
	if (getrandom(bytes, len, 0) == (ssize_t)len)
		return 0;
	return log_errno(-errno, "getrandom: %m");
}

/* RFC 9562, version 4. */
static int make_uuid(char *text, size_t size)
{
	uint8_t b[16];
	int r = random_bytes(b, sizeof(b));

	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	snprintf(
		text, size,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9],
		b[10], b[11], b[12], b[13], b[14], b[15]);
	return r;
}

/* In the range that libvirt, too, takes for QEMU. */
static int change_macs(struct domain_xml *xml)
{
	_cleanup_nodes_ struct nodes macs =
		find(xml, "/domain/devices/interface/mac");
	int r = 0;

	for (size_t i = 0; !r && i < macs.n; i++) {
		uint8_t b[3];
		char text[18];

		r = random_bytes(b, sizeof(b));
		snprintf(text, sizeof(text), "52:54:00:%02x:%02x:%02x", b[0],
			 b[1], b[2]);
		set(xml, macs.list[i], "address", text);
	}
	return r;
}

int domain_xml_rename(struct domain_xml *xml, const char *name)
{
	xmlNodePtr root = xml->lib.xmlDocGetRootElement(xml->doc);
	char uuid[37];
	int r = make_uuid(uuid, sizeof(uuid));

	if (r)
		return r;
	unset(xml, root, "id");
	set_text(xml, "/domain/name", name);
	set_text(xml, "/domain/uuid", uuid);
	/* libvirt wants the two to agree. */
	set_text(xml, "/domain/sysinfo/system/entry[@name='uuid']", uuid);
	return change_macs(xml);
}

size_t domain_xml_count_interfaces(struct domain_xml *xml)
{
	return count(xml, "/domain/devices/interface");
}

static int check_state(struct domain_xml *xml)
{
	static const struct {
		const char *path, *what;
	} states[] = {
		{ "/domain/os/nvram | /domain/os/loader[@type='pflash'] |"
		  " /domain/os[@firmware='efi']",
		  "UEFI variables" },
		{ "/domain/devices/tpm/backend[@type='emulator']", "a TPM" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		if (!count(xml, states[i].path))
			continue;
		log_error(
			"%s: the domain has %s, whose file an image does not have; no clone can be made; see convert --to libvirt",
			xml->subject, states[i].what);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

/* Its host side: the guest's stays. `n` makes a name of its own. */
static int detach_chardev(struct domain_xml *xml, xmlNodePtr node,
			  const char *dir, size_t n)
{
	/* Nothing of them is outside, or libvirt chooses it. */
	static const char *const own[] = { "pty",	  "null",      "vc",
					   "spicevmc",	  "spiceport", "dbus",
					   "qemu-vdagent" };
	_cleanup_free_ char *path = NULL;
	xmlNodePtr source = child(node, "source");

	drop_child(xml, node, "log");
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (is(xml, node, "type", own[i])) {
			if (source && !i)
				drop(xml, source);
			return 0;
		}
	if (is(xml, node, "type", "file") ||
	    (is(xml, node, "type", "unix") && source &&
	     is(xml, source, "mode", "bind"))) {
		if (!source)
			return 0;
		if (asprintf(&path, "%s/%s%zu", dir, (const char *)node->name,
			     n) < 0)
			return -ENOMEM;
		set(xml, source, "path", path);
		return 0;
	}
	set(xml, node, "type", "null");
	drop_child(xml, node, "source");
	drop_child(xml, node, "source");
	drop_child(xml, node, "protocol");
	return 0;
}

static void detach_displays(struct domain_xml *xml)
{
	_cleanup_nodes_ struct nodes displays = find(
		xml, "/domain/devices/graphics[@type='vnc' or @type='spice']");

	for (size_t i = 0; i < displays.n; i++) {
		static const char *const ports[] = { "port", "tlsPort",
						     "websocket", "socket" };

		for (size_t p = 0; p < ARRAY_SIZE(ports); p++)
			unset(xml, displays.list[i], ports[p]);
		set(xml, displays.list[i], "autoport", "yes");
	}
	drop_all(xml, "/domain/devices/graphics/listen[@type='socket']");
}

int domain_xml_detach(struct domain_xml *xml, const char *dir)
{
	_cleanup_nodes_ struct nodes devices = {};
	int r = check_state(xml);

	/* The same device once more, which libvirt adds by itself. */
	drop_all(xml, "/domain/devices/console[target/@type='serial']");
	devices =
		find(xml, "/domain/devices/*[self::serial or self::parallel or"
			  " self::console or self::channel or self::redirdev or"
			  " self::smartcard[@mode='passthrough']]");
	for (size_t i = 0; !r && i < devices.n; i++)
		r = detach_chardev(xml, devices.list[i], dir, i);
	detach_displays(xml);
	drop_all(xml, "/domain/devices/interface/target[@dev]");
	drop_all(xml, "/domain/seclabel[@type='dynamic']");
	return r;
}

#define WRITABLE_DISKS                                             \
	"/domain/devices/disk[(not(@device) or @device='disk' or " \
	"@device='lun') and not(readonly)]"

int domain_xml_replace_disk(struct domain_xml *xml, const char *file,
			    const char *overlay)
{
	_cleanup_nodes_ struct nodes disks = find(xml, WRITABLE_DISKS);
	int r = -ENOENT;

	for (size_t i = 0; i < disks.n; i++) {
		xmlNodePtr disk = disks.list[i], source = child(disk, "source"),
			   driver = child(disk, "driver");

		if (!source || (!is(xml, source, "file", file) &&
				!is(xml, source, "dev", file)))
			continue;
		set(xml, disk, "type", "file");
		unset(xml, source, "dev");
		set(xml, source, "file", overlay);
		if (!driver)
			driver = xml->lib.xmlNewChild(
				disk, NULL, (const xmlChar *)"driver", NULL);
		if (!driver)
			return -ENOMEM;
		set(xml, driver, "name", "qemu");
		set(xml, driver, "type", "qcow2");
		drop_child(xml, disk, "backingStore");
		drop_child(xml, disk, "mirror");
		r = 0;
	}
	return r;
}

int domain_xml_check_disks(struct domain_xml *xml, const char *dir)
{
	_cleanup_nodes_ struct nodes disks = find(xml, WRITABLE_DISKS);
	size_t len = strlen(dir);

	for (size_t i = 0; i < disks.n; i++) {
		xmlNodePtr source = child(disks.list[i], "source"),
			   target = child(disks.list[i], "target");
		_cleanup_free_ char *file =
			source ? get(xml, source, "file") : NULL;
		_cleanup_free_ char *name =
			target ? get(xml, target, "dev") : NULL;

		if (file && !strncmp(file, dir, len) && file[len] == '/')
			continue;
		log_error(
			"%s: disk %s of the domain is no file of which the image knows, so no overlay can be made of it",
			xml->subject, name ?: "?");
		return RESULT_FAILED;
	}
	return 0;
}

bool domain_xml_has_plain_ram(struct domain_xml *xml)
{
	return !count(xml, "/domain/memoryBacking/hugepages |"
			   " /domain/memoryBacking/access[@mode='shared'] |"
			   " /domain/memoryBacking/locked |"
			   " /domain/cpu/numa | /domain/devices/memory |"
			   " /domain/maxMemory");
}

/* By the usual prefix, unless that means something else there. */
static xmlNsPtr find_namespace(struct domain_xml *xml, xmlNodePtr root)
{
	static const char *const prefixes[] = { "qemu", "snapuffd" };
	const xmlChar *href = (const xmlChar *)QEMU_NAMESPACE;
	xmlNsPtr found = xml->lib.xmlSearchNsByHref(xml->doc, root, href);

	for (size_t i = 0; !found && i < ARRAY_SIZE(prefixes); i++)
		found = xml->lib.xmlNewNs(root, href,
					  (const xmlChar *)prefixes[i]);
	return found;
}

static xmlNodePtr find_command_line(struct domain_xml *xml, xmlNodePtr root,
				    xmlNsPtr namespace)
{
	for (xmlNodePtr at = root->children; at; at = at->next)
		if (at->type == XML_ELEMENT_NODE && at->ns == namespace &&
		    !strcmp((const char *)at->name, "commandline"))
			return at;
	return xml->lib.xmlNewChild(root, namespace,
				    (const xmlChar *)"commandline", NULL);
}

int domain_xml_add_argument(struct domain_xml *xml, const char *argument)
{
	xmlNodePtr root = xml->lib.xmlDocGetRootElement(xml->doc);
	xmlNodePtr line, arg = NULL;
	xmlNsPtr namespace = find_namespace(xml, root);

	if (!namespace) {
		log_error("%s: the XML has other namespaces by our names",
			  xml->subject);
		return RESULT_FAILED;
	}
	line = find_command_line(xml, root, namespace);
	if (line)
		arg = xml->lib.xmlNewChild(line, namespace,
					   (const xmlChar *)"arg", NULL);
	if (!arg)
		return -ENOMEM;
	set(xml, arg, "value", argument);
	return 0;
}

int domain_xml_read_host(const char *capabilities, struct domain_host *host)
{
	_cleanup_domain_xml_ struct domain_xml *xml = NULL;
	_cleanup_free_ char *label = NULL;
	int r = domain_xml_parse(capabilities, "libvirt", &xml);

	*host = (struct domain_host){};
	if (r)
		return r;
	host->confined = count(
		xml,
		"/capabilities/host/secmodel[model='apparmor' or model='selinux']");
	/* "+64055:+108"; none where they run as who the daemon is. */
	label = get_text(
		xml,
		"/capabilities/host/secmodel[model='dac']/baselabel[@type='kvm' or @type='qemu']");
	if (label && sscanf(label, "+%u:+%u", &host->uid, &host->gid) != 2) {
		log_error("libvirt: domains run as %s, which is no user",
			  label);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}
