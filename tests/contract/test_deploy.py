"""What deploys the review station holds together: safe containers, and names that exist."""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from hemascope.cli.app import app

DEPLOY = Path(__file__).parents[2] / "deploy"
OBJECTS: list[Any] = list(
    chain.from_iterable(
        yaml.safe_load_all(path.read_text("utf-8"))
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    )
)
COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
PODS = {
    one["metadata"]["name"]: one["spec"]["template"]
    for one in OBJECTS
    if "template" in one.get("spec", {})
}


def _named(kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


@pytest.mark.parametrize("name", PODS)
def test_pods_are_locked_down_and_their_volumes_exist(name: str) -> None:
    pod = PODS[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert pod["automountServiceAccountToken"] is False
    claims = _named("StatefulSet").get(name, {"spec": {}})["spec"].get("volumeClaimTemplates", ())
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} == set(container["resources"]["limits"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for container in pod["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]
    for volume in pod["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in _named("PersistentVolumeClaim")


def test_manifests_name_each_other() -> None:
    assert {one["metadata"].get("namespace", "hemascope") for one in OBJECTS} == {"hemascope"}
    services = _named("Service")
    for service in services.values():
        [pod] = [
            pod for pod in PODS.values() if pod["metadata"]["labels"] == service["spec"]["selector"]
        ]
        ports = {
            port.get("name"): port["containerPort"]
            for port in pod["spec"]["containers"][0]["ports"]
        }
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert target in ports or target in ports.values()
    [ingress] = _named("Ingress").values()
    [rule] = ingress["spec"]["rules"]
    assert rule["host"] in ingress["spec"]["tls"][0]["hosts"]
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        ports = {port.get("name") for port in services[backend["name"]]["spec"]["ports"]}
        assert backend["port"]["name"] in ports
    # Nothing is reached but what a policy allows, and each pod has one.
    policies = _named("NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {*PODS, "nothing"} == set(policies)


def test_secrets_are_named_and_never_given() -> None:
    text = "".join(path.read_text("utf-8") for path in DEPLOY.rglob("*") if path.is_file())
    assert not _named("Secret")
    assert not re.findall(r"PASSWORD[=:] *[\"']?[A-Za-z0-9]", text)
    assert not re.findall(r"://\w+:\w+@", text)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_are_locked_down_and_bounded(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"]
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert ("ports" in service) == (name == "proxy")
    for volume in service["volumes"]:
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()


def test_the_proxy_and_the_probes_ask_for_what_is_served() -> None:
    station = COMPOSE["services"]["station"]
    [container] = PODS["station"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == 8765
    assert "dynamic a station 8765" in (DEPLOY / "Caddyfile").read_text("utf-8")
    assert ":8765/api/v1/ready" in station["healthcheck"]["test"][-1]
    assert container["readinessProbe"]["httpGet"]["path"] == "/api/v1/ready"
    commands: Any = getattr(get_command(app), "commands")  # noqa: B009 - of click's groups
    if "serve" not in commands:
        pytest.skip("the review station is not part of this version")
    options = {option for one in commands["serve"].params for option in one.opts}
    for argument in (*station["command"][1:], *container["args"][1:]):
        assert argument.partition("=")[0] in options
