"""Streams of a running pod: exec with its channels and exit code, attach, logs."""

from kubernetes import client, watch
from kubernetes.stream import stream

from place import InNamespace


class Streams(InNamespace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        container = client.V1Container(name="main", image="anything")
        spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
        pod = client.V1Pod(metadata=client.V1ObjectMeta(name="talker"), spec=spec)
        cls.core.create_namespaced_pod(cls.namespace, pod)
        watching = watch.Watch()
        for event in watching.stream(cls.core.list_namespaced_pod, cls.namespace, timeout_seconds=60):
            if event["object"].status.phase == "Running":
                return
        raise AssertionError("the pod does not run")

    def open(self, call, **more):
        """A stream to the pod."""
        options = {"stdin": False, "stdout": True, "stderr": True, "tty": False} | more
        return stream(call, "talker", self.namespace, _preload_content=False, **options)

    def test_a_command_that_fails_tells_its_code(self):
        running = self.open(self.core.connect_get_namespaced_pod_exec, command=["fails"])
        running.run_forever(timeout=60)
        self.assertEqual((running.read_stdout(), running.read_stderr(), running.returncode), ("out", "err", 3))

    def test_a_command_reads_what_is_typed(self):
        typing = self.open(self.core.connect_get_namespaced_pod_exec, command=["cat"], stdin=True, tty=True, stderr=False)
        typing.write_channel(4, '{"Width": 80, "Height": 24}')
        for line in ["one\n", "two\n"]:
            typing.write_stdin(line)
            echoed = ""
            while not echoed.endswith("\n"):
                echoed += typing.read_stdout(timeout=60)
            self.assertEqual(echoed, line)
        typing.close()

    def test_a_whole_answer_is_read_at_once(self):
        answer = stream(
            self.core.connect_get_namespaced_pod_exec, "talker", self.namespace, command="fails", stdout=True, stderr=True
        )
        self.assertEqual(answer, "outerr")

    def test_attach_joins_what_runs(self):
        attached = self.open(self.core.connect_get_namespaced_pod_attach, container="main")
        self.assertEqual(attached.readline_stdout(timeout=60), "tick")
        attached.close()

    def test_what_is_not_there_is_refused(self):
        for pod, container, code in [("nobody", "main", 404), ("talker", "other", 400)]:
            with self.assertRaises(Exception) as refused:
                stream(self.core.connect_get_namespaced_pod_exec, pod, self.namespace, container=container, command="cat")
            # The client fails over the absent body of its own error, which stands behind this one.
            self.assertIn(f"Handshake status {code}", refused.exception.__context__.reason)

    def log(self, **options):
        """The log as it comes: the client would show bytes as Python writes them."""
        response = self.core.read_namespaced_pod_log("talker", self.namespace, _preload_content=False, **options)
        return response.data.decode()

    def test_logs_are_read_and_followed(self):
        self.assertEqual(self.log(limit_bytes=len("first line")), "first line")
        self.assertRegex(self.log(timestamps=True, tail_lines=1), r"^\d{4}-\d\d-\d\dT[\d:.]+Z tick\n$")
        watching, lines = watch.Watch(), []
        for line in watching.stream(self.core.read_namespaced_pod_log, "talker", self.namespace):
            lines.append(line)
            if len(lines) == 4:
                watching.stop()
        self.assertEqual(lines, ["first line", "tick", "tick", "tick"])

    def test_a_pod_is_evicted(self):
        spec = {"containers": [{"name": "main", "image": "anything"}], "terminationGracePeriodSeconds": 0}
        self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": "victim"}, "spec": spec})
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="victim"))
        answer = self.core.create_namespaced_pod_eviction("victim", self.namespace, eviction)
        self.assertEqual(answer.kind, "Status")
        pod = self.core.list_namespaced_pod(self.namespace, field_selector="metadata.name=victim").items
        self.assertTrue(all(it.metadata.deletion_timestamp for it in pod), "it is gone, or about to go")
