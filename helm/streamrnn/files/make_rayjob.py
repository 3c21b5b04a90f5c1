"""Makes the RayJob of a file through the Kubernetes API, unless one made before it still runs. Run by the CronJob,
whose it is: they are removed together.
"""

import json
import os
import ssl
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))


def ask(path: str, body: Any = None) -> Any:
    """One call of the API as this pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"https://{host}:{port}{path}", data, headers)
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))) as answer:  # noqa: S310
        return json.load(answer)


def main(file: str) -> None:
    """Ends with an error where the API refuses."""
    job = json.loads(Path(file).read_text())
    namespace, name = (ACCOUNT / "namespace").read_text(), os.environ["CRONJOB"]
    jobs = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    labels = job["metadata"]["labels"]
    mine = ",".join(f"{key}={labels[key]}" for key in (f"app.kubernetes.io/{one}" for one in ("instance", "component")))
    for one in ask(f"{jobs}?labelSelector={urllib.parse.quote(mine)}")["items"]:
        if one.get("status", {}).get("jobDeploymentStatus") not in ("Complete", "Failed"):
            print(f"{one['metadata']['name']} has not ended: no second one beside it")
            return
    uid = ask(f"/apis/batch/v1/namespaces/{namespace}/cronjobs/{name}")["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": name, "uid": uid, "blockOwnerDeletion": False}
    job["metadata"]["ownerReferences"] = [owner]
    print(f"made RayJob {ask(jobs, job)['metadata']['name']}")


if __name__ == "__main__":
    main(sys.argv[1])
