"""Makes the RayJob of a file through the Kubernetes API, unless one made before it has not ended. Run by the CronJob,
whose it is: they are removed together. The last three are kept: their names take turns, and are the only ones that this
pod may delete.
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
ENDED = ("Complete", "Failed", "ValidationFailed")
"""What KubeRay says of a RayJob that does nothing more. A suspended one would go on when it is let."""
KEPT = 3


def ask(method: str, path: str, body: Any = None) -> Any:
    """One call of the API as this pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"https://{host}:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))) as answer:  # noqa: S310
        return json.load(answer)


def main(file: str) -> None:
    """Ends with an error where the API refuses."""
    job = json.loads(Path(file).read_text())
    namespace, cronjob = (ACCOUNT / "namespace").read_text(), os.environ["CRONJOB"]
    jobs = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    labels = job["metadata"]["labels"]
    mine = ",".join(f"{key}={labels[key]}" for key in (f"app.kubernetes.io/{one}" for one in ("instance", "component")))
    there = ask("GET", f"{jobs}?labelSelector={urllib.parse.quote(mine)}")["items"]
    for one in there:
        status = one.get("status", {}).get("jobDeploymentStatus")
        if status not in ENDED:
            print(f"{one['metadata']['name']} has not ended ({status or 'not begun'}): no second one beside it")
            return
    names = [f"{job['metadata']['name']}-{number}" for number in range(KEPT + 1)]
    taken = {one["metadata"]["name"] for one in there}
    free = next((name for name in names if name not in taken), None)
    kept = [one["metadata"] for one in there if one["metadata"]["name"] in names]
    kept = [one for one in kept if "deletionTimestamp" not in one]
    for one in sorted(kept, key=lambda one: one["creationTimestamp"])[: max(0, len(kept) - KEPT + 1)]:
        ask("DELETE", f"{jobs}/{one['name']}")
        print(f"deleted RayJob {one['name']} of {one['creationTimestamp']}")
    if free is None:
        sys.exit(f"no name is free among {', '.join(names)}: delete one that has ended, or see what keeps it")
    uid = ask("GET", f"/apis/batch/v1/namespaces/{namespace}/cronjobs/{cronjob}")["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": cronjob, "uid": uid, "blockOwnerDeletion": False}
    job["metadata"] |= {"name": free, "ownerReferences": [owner]}
    print(f"made RayJob {ask('POST', jobs, job)['metadata']['name']}")


if __name__ == "__main__":
    main(sys.argv[1])
