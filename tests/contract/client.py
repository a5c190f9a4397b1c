#!/usr/bin/env python3
"""A device, written from docs/contract.md alone: client.py JOINFILE STATE [join|renew].

It shares no code with the agent or the server. With `join` it makes keys and joins; with `renew` it gets a new certificate.
Then it pulls, verifies, fetches every blob and reports, and says what it accepted as JSON. What it remembers lies in STATE.
"""
import base64, hashlib, http.client, json, re, ssl, sys, urllib.parse
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519

ROOT = "application/vnd.flotta.root.v1+json"
RELEASE = "application/vnd.flotta.release.v1+json"
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class Refused(Exception):
    """The server broke a rule of the contract."""


def need(condition, code, what):
    if not condition:
        raise Refused(f"{code}: {what}")


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def b64(data):
    return base64.b64encode(data).decode()


def strict(text, fields, optional=()):
    """JSON without unknown fields, and no name twice."""
    def once(pairs):
        need(len(dict(pairs)) == len(pairs), "FLT0301", "a name stands twice")
        return dict(pairs)
    value = json.loads(text, object_pairs_hook=once)
    names = set(value)
    need(set(fields) <= names <= set(fields) | set(optional), "FLT0301", f"fields {sorted(names)}")
    return value


# What is signed

def payload(envelope, kind):
    need(set(envelope) == {"payloadType", "payload", "signatures"}, "FLT0301", "not an envelope")
    need(envelope["payloadType"] == kind, "FLT0301", envelope["payloadType"])
    need(len(envelope["signatures"]) <= 16, "FLT0301", "too many signatures")
    return base64.b64decode(envelope["payload"], validate=True)


def signed_by(envelope, kind, role, code):
    """The payload, when enough distinct keys of the role signed it."""
    body = payload(envelope, kind)
    message = b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(body)) + body
    signers = set()
    for signature in envelope["signatures"]:
        for key in role["keys"]:
            raw = base64.b64decode(key.removeprefix("ed25519:"), validate=True)
            try:
                public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
                public.verify(base64.b64decode(signature["sig"]), message)
                signers.add(key)
            except InvalidSignature:
                pass
    need(0 < role["threshold"] <= len(signers), code, "too few signatures")
    return body


def read_root(envelope):
    """A trust root that its own keys signed."""
    root = strict(payload(envelope, ROOT), ["schema", "fleet", "version", "root", "release"])
    need(root["schema"] == 1 and root["version"] > 0, "FLT0301", "schema or version")
    for name in ["root", "release"]:
        keys = [base64.b64decode(key.removeprefix("ed25519:")) for key in root[name]["keys"]]
        need(keys == sorted(set(keys)) and len(keys) <= 16, "FLT0301", "keys are not sorted")
    signed_by(envelope, ROOT, root["root"], "FLT0303")
    return root


def follow(trust, envelope):
    if json.loads(payload(envelope, ROOT))["version"] <= trust["version"]:
        return trust
    signed_by(envelope, ROOT, trust["root"], "FLT0303")
    root = read_root(envelope)
    need(root["fleet"] == trust["fleet"], "FLT0304", root["fleet"])
    need(root["version"] == trust["version"] + 1, "FLT0303", root["version"])
    return root


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def proves(leaf, index, size, proof, root):
    """RFC 9162, 2.1.3.2: the algorithm for the tree of RFC 6962."""
    at, last, value = index, size - 1, hashlib.sha256(b"\0" + leaf).digest()
    if not 0 <= index < size or len(proof) > 32:
        return False
    for digest in proof:
        sibling = bytes.fromhex(digest.removeprefix("sha256:"))
        if last == 0:
            return False
        if at & 1 or at == last:
            value = node(sibling, value)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            value = node(value, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and "sha256:" + value.hex() == root


def accept(offer, device, memory):
    """The rules that a device enforces, in their order. Returns release and leaf; what is remembered changes with them."""
    trust = memory["trust"]
    for envelope in offer.get("roots", []):
        trust = follow(trust, envelope)
    body = signed_by(offer["release"], RELEASE, trust["release"], "FLT0302")
    release = strict(body, ["schema", "fleet", "sequence", "revision", "issued", "expires", "tree"])
    need(release["schema"] == 1, "FLT0301", "schema")
    need(release["fleet"] == trust["fleet"], "FLT0304", release["fleet"])
    sequence, tree = release["sequence"], release["tree"]
    before = memory.get("highest") or [0, None]
    need(sequence >= before[0], "FLT0307", sequence)
    need(sequence > before[0] or tree["root"] == before[1], "FLT0308", sequence)
    for time in ["issued", "expires"]:
        need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", release[time]), "FLT0301", release[time])
    text = offer["leaf"].encode()
    need(proves(text, offer["index"], tree["size"], offer["proof"], tree["root"]), "FLT0305", "proof")
    leaf = strict(text, ["device", "manifest", "earlier"])
    need(len(text) <= 1024 and len(leaf["earlier"]) <= 4, "FLT0301", "leaf")
    need(leaf["device"] == device, "FLT0306", leaf["device"])
    need(offer["manifest"] in [leaf["manifest"], *leaf["earlier"]], "FLT0309", offer["manifest"])
    memory.update(trust=trust, highest=[sequence, tree["root"]])
    return release, leaf


def read_manifest(content):
    manifest = strict(content, ["schema", "files", "units", "images", "settings"], ["health"])
    need(manifest["schema"] in [1, 2, 3], "FLT0311", "schema")
    for name, key in [("files", "path"), ("units", "name"), ("images", "reference")]:
        values = [entry[key] for entry in manifest[name]]
        need(values == sorted(set(values)), "FLT0311", f"{name} are not sorted")
    order = ["startup", "liveness", "readiness"]
    checks = [(c["unit"], c["container"], order.index(c["purpose"])) for c in manifest.get("health", [])]
    need(checks == sorted(set(checks)), "FLT0311", "health is not sorted")
    canonical = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
    need(canonical == content, "FLT0311", "not the encoding that the contract says")
    return manifest


# The edge API

class Server:
    def __init__(self, url, state, certified):
        place = urllib.parse.urlsplit(url)
        context = ssl.create_default_context(cafile=state / "ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certified:
            context.load_cert_chain(state / "certificate.pem", state / "key.pem")
        self.connection = http.client.HTTPSConnection(place.hostname, place.port, context=context, timeout=30)

    def ask(self, method, path, body=None, headers=None, expect=200):
        self.connection.request(method, path, body and json.dumps(body), headers or {})
        answer = self.connection.getresponse()
        content = answer.read()
        need(answer.status == expect, answer.status, f"{method} {path}: {content.decode(errors='replace')}")
        kind = answer.headers.get("content-type")
        if kind == "application/json":
            return answer.headers, json.loads(content)
        need(not content or kind == "application/octet-stream", "content type", kind)
        return answer.headers, content


def request_for(key):
    """A CSR: what it asks for is not looked at."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


def join(file, state):
    key = ec.generate_private_key(ec.SECP256R1())
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (state / "key.pem").write_bytes(key.private_bytes(PEM, *private))
    (state / "ca.pem").write_text(file["ca"])
    sealing = b64(x25519.X25519PrivateKey.generate().public_key().public_bytes(*RAW))
    statement = f"flotta sealing key v1\n{file['device']}\n{sealing}\n".encode()
    proof = b64(key.sign(statement, ec.ECDSA(hashes.SHA256())))
    asked = {"device": file["device"], "token": file["token"], "csr": request_for(key)}
    asked |= {"sealing_key": sealing, "sealing_proof": proof, "hardware": {"model": "a contract's client"}}
    server = Server(file["server"], state, certified=False)
    _, answer = server.ask("POST", "/v1/enrolments", asked)
    need(answer["state"] == "approved" and answer["device"] == file["device"], "join", answer)
    (state / "certificate.pem").write_text(answer["certificate"])
    # asked again with the same keys: the answer may have been lost
    server.ask("POST", "/v1/enrolments", asked)
    fingerprint = hashlib.sha256(key.public_key().public_bytes(DER, SPKI)).hexdigest()
    server.ask("GET", f"/v1/enrolments/{fingerprint}", expect=404)
    return {"trust": read_root(file["trust_root"])}


def renew(server, state):
    key = serialization.load_pem_private_key((state / "key.pem").read_bytes(), None)
    _, answer = server.ask("POST", "/v1/certificates", {"csr": request_for(key)})
    (state / "certificate.pem").write_text(answer["certificate"])


def identity(state):
    certificate = x509.load_pem_x509_certificate((state / "certificate.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def pull(server, device, memory):
    """Pulls, verifies and fetches; returns what it accepted."""
    version = memory["trust"]["version"]
    path = f"/v1/desired?root={version}&schema=3"
    headers, offer = server.ask("GET", path, headers={"If-None-Match": memory.get("tag", '"none"')})
    release, _ = accept(offer, device, memory)
    hexadecimal = offer["manifest"].removeprefix("sha256:")
    need(headers["etag"] == f'"{release["sequence"]}-{hexadecimal}"', "etag", headers["etag"])
    again = {"If-None-Match": headers["etag"], "Prefer": "wait=0"}
    newest = f"/v1/desired?root={memory['trust']['version']}&schema=3"
    server.ask("GET", newest, headers=again, expect=304)

    _, content = server.ask("GET", f"/v1/blobs/{offer['manifest']}")
    need(sha256(content) == offer["manifest"], "FLT0310", "manifest")
    manifest = read_manifest(content)
    for file in manifest["files"]:
        blob = f"/v1/blobs/{file['digest']}"
        _, whole = server.ask("GET", blob)
        need(sha256(whole) == file["digest"] and len(whole) == file["size"], "FLT0310", file["path"])
        _, rest = server.ask("GET", blob, headers={"Range": "bytes=5-"}, expect=206)
        need(rest == whole[5:], "range", file["path"])
        past, _ = server.ask("GET", blob, headers={"Range": f"bytes={len(whole)}-"}, expect=416)
        need(past["content-range"] == f"bytes */{len(whole)}", "range", past["content-range"])
    return release, offer, manifest


def report(server, release, offer, manifest):
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    applied = {"manifest": offer["manifest"], "release": release["sequence"]}
    names = sorted({unit["workload"] for unit in manifest["units"]})
    event = {"id": 7, "time": now, "reason": "Applied", "message": "by the contract alone"}
    said = {"agent": "contract", "boot": "b", "time": now, "phase": "idle", "manifest_schema": 3, "log": "l",
            "release": release["sequence"], "wanted": offer["manifest"], "applied": applied, "events": [event],
            "workloads": [{"name": name, "state": "Running"} for name in names], "a field": "of tomorrow"}
    _, answer = server.ask("PUT", "/v1/report", said)
    need(answer["events"] == 7, "acknowledged", answer)


def main(path, folder, doing=""):
    file = strict(Path(path).read_text(), ["schema", "fleet", "server", "ca", "trust_root"], ["device", "token"])
    state = Path(folder)
    memory = join(file, state) if doing == "join" else json.loads((state / "memory.json").read_text())
    need(identity(state) == [f"flotta://{file['fleet']}/{file['device']}"], "identity", identity(state))
    server = Server(file["server"], state, certified=True)
    if doing == "renew":
        renew(server, state)
        server = Server(file["server"], state, certified=True)
    release, offer, manifest = pull(server, file["device"], memory)
    (state / "memory.json").write_text(json.dumps(memory))
    report(server, release, offer, manifest)
    print(json.dumps({"sequence": release["sequence"], "root": memory["trust"]["version"],
                      "files": len(manifest["files"]), "manifest": offer["manifest"], "size": release["tree"]["size"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
