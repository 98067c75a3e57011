"""The dynamic client: kinds are found by discovery, custom ones included."""

from kubernetes import client, dynamic
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

from place import InNamespace

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "kettles.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "kettles", "singular": "kettle", "kind": "Kettle", "shortNames": ["ket"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"litres": {"type": "integer", "default": 1}}},
                            "status": {"type": "object", "properties": {"hot": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}


class Dynamic(InNamespace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dynamic = dynamic.DynamicClient(client.ApiClient())
        definitions = cls.dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
        definitions.create(body=DEFINITION)
        name = "metadata.name=kettles.example.com"
        for event in definitions.watch(field_selector=name, timeout=60):
            conditions = event["object"].status.conditions or []
            if any(it.type == "Established" and it.status == "True" for it in conditions):
                return
        raise AssertionError("the definition is not established")

    @classmethod
    def tearDownClass(cls):
        client.ApiextensionsV1Api().delete_custom_resource_definition("kettles.example.com")
        super().tearDownClass()

    def setUp(self):
        self.kettles = self.dynamic.resources.get(api_version="example.com/v1", kind="Kettle")
        self.maps = self.dynamic.resources.get(api_version="v1", kind="ConfigMap")

    def test_kinds_are_found(self):
        self.assertEqual((self.kettles.name, self.kettles.namespaced), ("kettles", True))
        found = self.dynamic.resources.get(api_version="apps/v1", kind="Deployment")
        self.assertEqual(set(found.subresources), {"scale", "status"})
        self.assertEqual(self.dynamic.resources.get(short_names=["ket"]).kind, "Kettle")
        with self.assertRaises(ResourceNotFoundError):
            self.dynamic.resources.get(api_version="v1", kind="Nothing")

    def test_custom_objects_make_the_whole_journey(self):
        body = {"apiVersion": "example.com/v1", "kind": "Kettle", "metadata": {"name": "tea"}, "spec": {}}
        made = self.kettles.create(body=body, namespace=self.namespace)
        self.assertEqual((made.spec.litres, made.metadata.generation), (1, 1))
        unknown = {"spec": {"lid": True}}
        merge = {"name": "tea", "namespace": self.namespace, "content_type": "application/merge-patch+json"}
        pruned = self.kettles.patch(body=unknown, **merge)
        self.assertEqual((pruned.spec.to_dict(), pruned.metadata.generation), ({"litres": 1}, 1))
        hot = {"apiVersion": "example.com/v1", "kind": "Kettle", "metadata": {"name": "tea"}, "status": {"hot": True}}
        self.kettles.status.patch(body=hot, namespace=self.namespace, content_type="application/merge-patch+json")
        read = self.kettles.get(name="tea", namespace=self.namespace)
        self.assertEqual((read.status.hot, read.metadata.generation), (True, 1))
        read.spec.litres = 2
        self.assertEqual(self.kettles.replace(body=read.to_dict(), namespace=self.namespace).metadata.generation, 2)
        with self.assertRaises(ConflictError):
            self.kettles.replace(body=read.to_dict(), namespace=self.namespace)
        objects = client.CustomObjectsApi().list_namespaced_custom_object("example.com", "v1", self.namespace, "kettles")
        self.assertEqual([it["spec"]["litres"] for it in objects["items"]], [2])
        self.kettles.delete(name="tea", namespace=self.namespace)
        with self.assertRaises(NotFoundError):
            self.kettles.get(name="tea", namespace=self.namespace)

    def test_applied_fields_have_their_manager(self):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
        apply = lambda manager, force=None: self.maps.server_side_apply(
            body=body, namespace=self.namespace, field_manager=manager, force_conflicts=force
        )
        first = apply("one")
        self.assertEqual([(it.manager, it.operation) for it in first.metadata.managedFields], [("one", "Apply")])
        body["data"]["a"] = "2"
        with self.assertRaises(ConflictError) as refused:
            apply("two")
        self.assertIn('conflict with \\"one\\"', refused.exception.body)
        self.assertEqual(apply("two", True).data.a, "2")

    def test_selections_are_listed(self):
        for name in ["a", "b"]:
            body = {"metadata": {"name": name, "labels": {"pick": name}}}
            self.maps.create(body=body, namespace=self.namespace)
        picked = self.maps.get(namespace=self.namespace, label_selector="pick in (a, b), pick != b")
        self.assertEqual([it.metadata.name for it in picked.items], ["a"])
        self.maps.delete(namespace=self.namespace, label_selector="pick")
        self.assertEqual(self.maps.get(namespace=self.namespace, label_selector="pick").items, [])
