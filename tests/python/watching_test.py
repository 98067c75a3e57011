"""Watches: from a list's version on, taken up again where they ended, and refused where history is gone."""

from kubernetes import watch
from kubernetes.client.rest import ApiException

from place import InNamespace


class Watching(InNamespace):
    def events(self, count, **more):
        """The first events of a watch."""
        watching, seen = watch.Watch(), []
        for event in watching.stream(self.core.list_namespaced_config_map, self.namespace, timeout_seconds=60, **more):
            seen.append(event)
            if len(seen) == count:
                watching.stop()
        return seen

    def test_nothing_is_missed_between_a_list_and_its_watch(self):
        selection = {"label_selector": "set=between"}
        self.config_map("before", {"set": "between"}, n="0")
        listed = self.core.list_namespaced_config_map(self.namespace, **selection)
        self.assertEqual([it.metadata.name for it in listed.items], ["before"])
        self.config_map("after", {"set": "between"}, n="0")
        self.core.patch_namespaced_config_map("before", self.namespace, {"data": {"n": "1"}})
        self.core.delete_namespaced_config_map("after", self.namespace)
        seen = self.events(3, resource_version=listed.metadata.resource_version, **selection)
        told = [(it["type"], it["object"].metadata.name, it["object"].data["n"]) for it in seen]
        self.assertEqual(told, [("ADDED", "after", "0"), ("MODIFIED", "before", "1"), ("DELETED", "after", "0")])

        # Whoever resumes from an event gets what came after it, once.
        middle = seen[1]["object"].metadata.resource_version
        self.assertEqual([it["type"] for it in self.events(1, resource_version=middle, **selection)], ["DELETED"])
        versions = [int(it["object"].metadata.resource_version) for it in seen]
        self.assertEqual(versions, sorted(set(versions)))

    def test_a_watch_that_ended_is_resumed_by_the_same_object(self):
        watching = watch.Watch()
        follow = lambda: watching.stream(
            self.core.list_namespaced_config_map,
            self.namespace,
            label_selector="set=resumed",
            timeout_seconds=1,
            resource_version=watching.resource_version,
        )
        watching.resource_version = self.core.list_namespaced_config_map(self.namespace).metadata.resource_version
        for name in ["one", "two", "three"]:
            self.config_map(name, {"set": "resumed"})
            self.assertEqual([it["object"].metadata.name for it in follow()], [name])

    def test_a_watch_without_a_version_begins_with_what_is_there(self):
        self.config_map("there", {"set": "there"})
        seen = self.events(1, label_selector="set=there")
        self.assertEqual((seen[0]["type"], seen[0]["raw_object"]["kind"]), ("ADDED", "ConfigMap"))

    def test_bookmarks_end_the_initial_events(self):
        self.config_map("marked", {"set": "marked"})
        seen = self.events(
            2,
            label_selector="set=marked",
            send_initial_events=True,
            resource_version_match="NotOlderThan",
            allow_watch_bookmarks=True,
        )
        self.assertEqual([it["type"] for it in seen], ["ADDED", "BOOKMARK"])
        metadata = seen[1]["object"]["metadata"]
        self.assertEqual(metadata["annotations"], {"k8s.io/initial-events-end": "true"})
        self.assertGreaterEqual(int(metadata["resourceVersion"]), int(seen[0]["object"].metadata.resource_version))

    def test_a_version_that_is_yet_to_come_is_refused(self):
        with self.assertRaises(ApiException) as refused:
            self.events(1, resource_version="99999999999")
        self.assertEqual(refused.exception.status, 504)
        self.assertIn("Timeout: Timeout: Too large resource version: 99999999999, current: ", refused.exception.reason)

    def test_all_namespaces_are_watched_at_once(self):
        self.config_map("anywhere", {"set": "anywhere"})
        watching, places = watch.Watch(), []
        follow = watching.stream(self.core.list_config_map_for_all_namespaces, label_selector="set", timeout_seconds=60)
        for event in follow:
            places.append((event["object"].metadata.namespace, event["object"].metadata.name))
            if (self.namespace, "anywhere") in places:
                watching.stop()
        self.assertIn((self.namespace, "anywhere"), places)
