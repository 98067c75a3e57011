"""A namespace of its own for each class of tests, and the client that reaches it."""

import unittest

from kubernetes import client, config
from kubernetes.client.rest import ApiException

config.load_kube_config()


class InNamespace(unittest.TestCase):
    """Tests that share one namespace, named after their class."""

    @classmethod
    def setUpClass(cls):
        cls.core = client.CoreV1Api()
        cls.namespace = cls.__name__.lower()
        cls.core.create_namespace({"metadata": {"name": cls.namespace}})

    @classmethod
    def tearDownClass(cls):
        cls.core.delete_namespace(cls.namespace)

    def config_map(self, name, labels=None, **data):
        """Creates a config map."""
        metadata = client.V1ObjectMeta(name=name, labels=labels)
        return self.core.create_namespaced_config_map(self.namespace, client.V1ConfigMap(metadata=metadata, data=data))

    def refused(self, code, reason):
        """A context in which one request is refused with this code and reason."""
        return Refused(self, code, reason)


class Refused:
    """Holds what a server said when it refused."""

    def __init__(self, test, code, reason):
        self.test, self.code, self.reason, self.status = test, code, reason, None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.test.assertIsInstance(error, ApiException)
        self.status = client.ApiClient().deserialize(Body(error.body), "V1Status")
        self.test.assertEqual((error.status, self.status.code, self.status.reason), (self.code, self.code, self.reason))
        return True


class Body:
    """What the client's deserialization reads from."""

    def __init__(self, data):
        self.data = data if isinstance(data, str) else data.decode()
