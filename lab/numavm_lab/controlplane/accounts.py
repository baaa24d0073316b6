"""What the API server is asked for on behalf of NumaVM's processes: Nodes and tokens.

There is no controller-manager here, so Node objects are made by hand, and tokens come from
TokenRequest only. A token bound to a Node carries the claim
``authentication.kubernetes.io/node-name`` and dies with that Node (KEP-4193).
"""

from dataclasses import dataclass

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from numavm_lab.errors import LabError

DEFAULT_TOKEN_SECONDS = 24 * 3600
"""Life of a token unless asked otherwise; the API server's own minimum is 600 s."""

_CONFLICT = 409


@dataclass(frozen=True)
class ServiceAccount:
    """A service account by namespace and name."""

    namespace: str
    name: str


OPERATOR = ServiceAccount("numavm-system", "numavm-operator")
AGENT = ServiceAccount("numavm-system", "numavm-agent")


def ensure_node(api: client.ApiClient, name: str) -> str:
    """Create the Node object ``name`` unless it exists; return its uid.

    The labels are those a kubelet sets, so that node selectors and affinities work as everywhere. The taint that a new
    node has until a kubelet and a controller-manager call it ready is taken off: here is neither.
    """
    core = client.CoreV1Api(api)
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    body = client.V1Node(metadata=client.V1ObjectMeta(name=name, labels=labels))
    try:
        uid = _uid(core.create_node(body))
    except ApiException as error:
        if error.status != _CONFLICT:
            raise
        return _uid(core.read_node(name))
    core.patch_node(name, {"spec": {"taints": None}})
    return uid


def mint_token(
    api: client.ApiClient,
    account: ServiceAccount,
    *,
    node: str | None = None,
    lifetime_seconds: int = DEFAULT_TOKEN_SECONDS,
) -> str:
    """Return a new token of the account, bound to ``node`` (created if missing) where given."""
    bound_to = None
    if node is not None:
        bound_to = client.V1BoundObjectReference(
            api_version="v1", kind="Node", name=node, uid=ensure_node(api, node)
        )
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(
            audiences=[], expiration_seconds=lifetime_seconds, bound_object_ref=bound_to
        )
    )
    answer = client.CoreV1Api(api).create_namespaced_service_account_token(
        account.name, account.namespace, request
    )
    if answer.status is None:
        raise LabError(f"the API server gave {account.namespace}/{account.name} no token")
    return str(answer.status.token)


def _uid(node: client.V1Node) -> str:
    if node.metadata is None:
        raise LabError("the API server answered with a Node without metadata")
    return str(node.metadata.uid)
