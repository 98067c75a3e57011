"""The typed client: objects of many groups make their whole journey as models."""

from kubernetes import client, utils

from place import InNamespace


class Typed(InNamespace):
    def test_an_object_is_made_read_replaced_and_deleted(self):
        made = self.config_map("journey", colour="red")
        self.assertEqual(made.metadata.creation_timestamp.tzname(), "UTC")
        read = self.core.read_namespaced_config_map("journey", self.namespace)
        self.assertEqual(read.to_dict() | {"kind": None, "api_version": None}, made.to_dict() | {"kind": None, "api_version": None})
        read.data["colour"] = "blue"
        replaced = self.core.replace_namespaced_config_map("journey", self.namespace, read)
        self.assertEqual((replaced.metadata.uid, replaced.data), (made.metadata.uid, {"colour": "blue"}))
        with self.refused(409, "Conflict"):
            self.core.replace_namespaced_config_map("journey", self.namespace, made)
        gone = self.core.delete_namespaced_config_map("journey", self.namespace)
        self.assertEqual((gone.status, gone.details.name, gone.details.uid), ("Success", "journey", made.metadata.uid))
        with self.refused(404, "NotFound") as refused:
            self.core.read_namespaced_config_map("journey", self.namespace)
        self.assertEqual(refused.status.message, 'configmaps "journey" not found')
        self.assertEqual((refused.status.details.kind, refused.status.details.name), ("configmaps", "journey"))

    def test_a_deployment_has_its_status_and_its_scale(self):
        apps = client.AppsV1Api()
        container = client.V1Container(name="main", image="anything", resources=client.V1ResourceRequirements(requests={"cpu": "10m"}))
        spec = client.V1DeploymentSpec(
            replicas=2,
            selector=client.V1LabelSelector(match_labels={"app": "web"}),
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(labels={"app": "web"}), spec=client.V1PodSpec(containers=[container])
            ),
        )
        metadata = client.V1ObjectMeta(generate_name="web-")
        made = apps.create_namespaced_deployment(self.namespace, client.V1Deployment(metadata=metadata, spec=spec))
        name = made.metadata.name
        self.assertRegex(name, r"^web-[a-z0-9]{5}$")
        self.assertEqual(made.spec.strategy.rolling_update.max_surge, "25%")
        scale = apps.read_namespaced_deployment_scale(name, self.namespace)
        self.assertEqual((scale.spec.replicas, scale.metadata.uid), (2, made.metadata.uid))
        # Whoever does not say which version is meant is never too late.
        scale.spec.replicas, scale.metadata.resource_version = 0, None
        scaled = apps.replace_namespaced_deployment_scale(name, self.namespace, scale)
        self.assertIsNone(scaled.spec.replicas, "a scale does not show none")
        status = apps.read_namespaced_deployment_status(name, self.namespace)
        self.assertEqual((status.spec.replicas, status.metadata.generation), (0, 2))
        apps.delete_namespaced_deployment(name, self.namespace, propagation_policy="Foreground")

    def test_what_is_wrong_is_named(self):
        with self.refused(422, "Invalid") as refused:
            self.config_map("Not A Name")
        cause = refused.status.details.causes[0]
        self.assertEqual((cause.field, cause.reason), ("metadata.name", "FieldValueInvalid"))
        with self.refused(409, "AlreadyExists"):
            [self.config_map("twice") for _ in range(2)]
        unknown = {"metadata": {"name": "strict"}, "wrong": 1}
        with self.refused(400, "BadRequest") as refused:
            self.core.create_namespaced_config_map(self.namespace, unknown, field_validation="Strict")
        self.assertIn('unknown field "wrong"', refused.status.message)
        self.core.create_namespaced_config_map(self.namespace, {"metadata": {"name": "dry"}}, dry_run="All")
        with self.refused(404, "NotFound"):
            self.core.read_namespaced_config_map("dry", self.namespace)

    def test_binary_and_secret_data_stay_as_they_are(self):
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="word"), string_data={"a": "open"}, data={"b": "AAEC/w=="})
        self.core.create_namespaced_secret(self.namespace, secret)
        read = self.core.read_namespaced_secret("word", self.namespace)
        self.assertEqual((read.type, read.data), ("Opaque", {"a": "b3Blbg==", "b": "AAEC/w=="}))

    def test_manifests_are_created_by_the_client_library(self):
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "from-dict"}, "rules": []}
        job = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "nightly"},
            "spec": {
                "schedule": "0 3 * * *",
                "jobTemplate": {
                    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}
                },
            },
        }
        for manifest in [role, job]:
            utils.create_from_dict(client.ApiClient(), manifest, namespace=self.namespace)
        read = client.BatchV1Api().read_namespaced_cron_job("nightly", self.namespace)
        self.assertEqual((read.spec.concurrency_policy, read.spec.suspend), ("Allow", False))

    def test_the_server_tells_of_itself(self):
        version = client.VersionApi().get_code()
        self.assertEqual((version.major, version.minor), ("1", "36"))
        groups = {group.name: group.preferred_version.version for group in client.ApisApi().get_api_versions().groups}
        self.assertEqual((groups["apps"], groups["autoscaling"]), ("v1", "v2"))
        resources = {resource.name for resource in self.core.get_api_resources().resources}
        self.assertLessEqual({"pods", "pods/log", "pods/exec", "namespaces/finalize"}, resources)
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")
            )
        )
        self.assertTrue(client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed)
