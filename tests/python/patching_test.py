"""Patches: JSON, merge, strategic merge and apply, each by its media type."""

from kubernetes import client

from place import InNamespace

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Patching(InNamespace):
    def setUp(self):
        spec = {
            "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
        }
        template = {"metadata": {"labels": {"app": "x"}}, "spec": spec}
        body = {"metadata": {"name": "x"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template}}
        self.apps = client.AppsV1Api()
        self.apps.create_namespaced_deployment(self.namespace, body)
        self.addCleanup(self.apps.delete_namespaced_deployment, "x", self.namespace)

    def patch(self, kind, body, **more):
        patched = self.apps.patch_namespaced_deployment("x", self.namespace, body, _content_type=kind, **more)
        return patched.spec.template.spec

    def test_a_strategic_patch_merges_lists_by_their_keys(self):
        add = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1"}]}}}}
        images = {it.name: it.image for it in self.patch(STRATEGIC, add).containers}
        self.assertEqual(images, {"a": "a:1", "b": "b:2", "c": "c:1"})
        spec = {"containers": [{"name": "c", "$patch": "delete"}, {"name": "a", "env": [{"name": "Y", "value": "2"}]}]}
        spec["$setElementOrder/containers"] = [{"name": "b"}, {"name": "a"}]
        patched = self.patch(STRATEGIC, {"spec": {"template": {"spec": spec}}})
        self.assertEqual([it.name for it in patched.containers], ["b", "a"])
        self.assertEqual({it.name: it.value for it in patched.containers[1].env}, {"X": "1", "Y": "2"})

    def test_a_merge_patch_replaces_lists_and_removes_nulls(self):
        spec = {"containers": [{"name": "b", "image": "b:2"}], "tolerations": None}
        patched = self.patch(MERGE, {"spec": {"template": {"spec": spec}}})
        self.assertEqual([it.name for it in patched.containers], ["b"])
        self.assertIsNone(patched.tolerations)

    def test_a_json_patch_does_its_operations_in_order(self):
        place = "/spec/template/spec/containers"
        operations = [
            {"op": "test", "path": f"{place}/0/name", "value": "a"},
            {"op": "move", "from": f"{place}/0", "path": f"{place}/1"},
            {"op": "copy", "from": f"{place}/0/image", "path": f"{place}/1/image"},
            {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "c"}},
            {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "d"},
        ]
        patched = self.patch(JSON, operations)
        self.assertEqual([(it.name, it.image) for it in patched.containers], [("b", "b:1"), ("a", "b:1")])
        self.assertEqual(self.apps.read_namespaced_deployment("x", self.namespace).metadata.annotations["a/b"], "d")
        with self.refused(422, "Invalid"):
            self.patch(JSON, [{"op": "test", "path": "/spec/replicas", "value": 7}])

    def test_the_client_picks_the_kind_by_the_body(self):
        operations = [{"op": "replace", "path": "/spec/paused", "value": True}]
        with self.refused(422, "Invalid"):
            self.apps.patch_namespaced_deployment("x", self.namespace, operations)
        operations[0]["op"] = "add"
        self.assertTrue(self.apps.patch_namespaced_deployment("x", self.namespace, operations).spec.paused)
        strategic = {"spec": {"paused": None, "replicas": 0}}
        self.assertIsNone(self.apps.patch_namespaced_deployment("x", self.namespace, strategic).spec.paused)

    def test_an_applied_configuration_owns_its_fields(self):
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"minReadySeconds": 5}}
        with self.refused(422, "Invalid") as refused:
            self.patch(APPLY, body)
        self.assertIn("PatchOptions.meta.k8s.io", refused.status.message)
        self.patch(APPLY, body, field_manager="one")
        body["spec"]["minReadySeconds"] = 6
        with self.refused(409, "Conflict") as refused:
            self.patch(APPLY, body, field_manager="two")
        self.assertEqual(refused.status.details.causes[0].field, ".spec.minReadySeconds")
        self.patch(APPLY, body, field_manager="two", force=True)
        del body["spec"]["minReadySeconds"]
        self.patch(APPLY, body, field_manager="two", force=True)
        self.assertIsNone(self.apps.read_namespaced_deployment("x", self.namespace).spec.min_ready_seconds)

    def test_a_status_is_patched_apart(self):
        body = {"spec": {"replicas": 9}, "status": {"conditions": [{"type": "Mine", "status": "True"}]}}
        patched = self.apps.patch_namespaced_deployment_status("x", self.namespace, body)
        self.assertEqual(patched.spec.replicas, 0)
        self.assertIn("Mine", [it.type for it in patched.status.conditions])

    def test_other_media_types_are_refused(self):
        with self.refused(415, "UnsupportedMediaType"):
            self.patch("application/json", {"spec": {"replicas": 1}})
