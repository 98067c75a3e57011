"""Lists in pages: each continues the last one, in one and the same version of everything."""

from kubernetes import client

from place import InNamespace


class Pages(InNamespace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for index in range(7):
            body = {"metadata": {"name": f"page-{index}", "labels": {"page": str(index % 2)}}}
            cls.core.create_namespaced_config_map(cls.namespace, body)

    def pages(self, **more):
        """All pages of a list."""
        token = None
        while True:
            page = self.core.list_namespaced_config_map(self.namespace, limit=3, _continue=token, **more)
            yield page
            token = page.metadata._continue
            if not token:
                return

    def test_all_pages_are_the_whole(self):
        whole = self.core.list_namespaced_config_map(self.namespace)
        pages = list(self.pages())
        names = [it.metadata.name for page in pages for it in page.items]
        self.assertEqual(names, [it.metadata.name for it in whole.items])
        self.assertEqual(len({page.metadata.resource_version for page in pages}), 1)
        left = [page.metadata.remaining_item_count for page in pages]
        self.assertEqual(left[0], len(names) - 3)
        self.assertIsNone(left[-1])

    def test_pages_of_a_selection(self):
        pages = list(self.pages(label_selector="page=0"))
        self.assertEqual([[it.metadata.name[-1] for it in page.items] for page in pages], [["0", "2", "4"], ["6"]])
        self.assertIsNone(pages[0].metadata.remaining_item_count)

    def test_what_comes_later_is_on_no_page(self):
        pages = self.pages()
        first = next(pages)
        self.core.create_namespaced_config_map(self.namespace, {"metadata": {"name": "page-4-and-a-half"}})
        rest = [it.metadata.name for page in pages for it in page.items]
        self.core.delete_namespaced_config_map("page-4-and-a-half", self.namespace)
        self.assertNotIn("page-4-and-a-half", rest)
        self.assertNotIn(first.items[0].metadata.name, rest)

    def test_tokens_that_are_none_are_refused(self):
        with self.refused(400, "BadRequest") as refused:
            self.core.list_namespaced_config_map(self.namespace, limit=3, _continue="nonsense")
        self.assertTrue(refused.status.message.startswith("invalid continue token: continue key is not valid"), refused.status.message)

    def test_what_is_in_no_namespace_is_paged_too(self):
        page = client.FlowcontrolApiserverV1Api().list_flow_schema(limit=2)
        self.assertEqual(len(page.items), 2)
        self.assertTrue(page.metadata._continue)
