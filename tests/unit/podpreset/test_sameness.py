"""What the API server fills in is no difference; everything else is."""

import pytest

from services.podpreset.sameness import kept, same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 420}}),
        ({"secret": {"secretName": "c"}}, {"secret": {"secretName": "c", "defaultMode": 420, "optional": False}}),
        ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
        ({"name": "v"}, {"name": "v", "emptyDir": {}}),
        ({"fieldRef": {"fieldPath": "x"}}, {"fieldRef": {"fieldPath": "x", "apiVersion": "v1"}}),
        ({"mountPath": "/x", "readOnly": False}, {"mountPath": "/x"}),
        (
            {"items": [{"serviceAccountToken": {"path": "t"}}]},
            {"items": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]},
        ),
        ({"image": {"reference": "a:1"}}, {"image": {"reference": "a:1", "pullPolicy": "IfNotPresent"}}),
        ({"image": {"reference": "a"}}, {"image": {"reference": "a", "pullPolicy": "Always"}}),
        ({"podCertificate": {"keyType": "k"}}, {"podCertificate": {"keyType": "k", "maxExpirationSeconds": 86400}}),
        ({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}}),
        ({"emptyDir": {"sizeLimit": "1000"}}, {"emptyDir": {"sizeLimit": "1k"}}),
        ({"emptyDir": {"sizeLimit": "1.5Gi"}}, {"emptyDir": {"sizeLimit": "1536Mi"}}),
        ({"emptyDir": {"sizeLimit": "1e3"}}, {"emptyDir": {"sizeLimit": 1000}}),
        ({"resourceFieldRef": {"divisor": "1"}}, {"resourceFieldRef": {"divisor": "1000m"}}),
        ({"volumeClaimTemplate": {}}, {"volumeClaimTemplate": {"metadata": {"creationTimestamp": None}}}),
        ({"spec": {"x": 1}}, {"spec": {"x": 1}, "metadata": {"creationTimestamp": None}}),
    ],
)
def test_what_means_the_same_is_the_same_both_ways(one, other):
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("5e-9", "5n"),
        ("5e-6", "5u"),
        ("5e-3", "5m"),
        ("5E3", "5k"),
        ("5e6", "5M"),
        ("5e9", "5G"),
        ("5e12", "5T"),
        ("5e15", "5P"),
        ("5e18", "5E"),
        ("1024", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1024Mi", "1Gi"),
        ("1024Gi", "1Ti"),
        ("1024Ti", "1Pi"),
        ("1024Pi", "1Ei"),
        ("0.5", ".5"),
    ],
)
def test_a_quantity_is_its_number_however_it_is_written(quantity, number):
    assert same({"storage": quantity}, {"storage": number})
    assert not same({"storage": quantity}, {"storage": f"1{number}"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"items": [1, 2]}, {"items": [1, 3]}),
        ({"items": [1, 2]}, {"items": [3, 2]}),
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "d"}}),
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 256}}),
        ({"configMap": {"name": "c"}}, {"configMap": {"name": "c", "defaultMode": 0}}),
        ({"configMapRef": {"name": "c"}}, {"configMapRef": {"name": "c", "optional": True}}),
        ({"name": "v"}, {"name": "v", "hostPath": {"path": "/"}}),
        ({"fieldRef": {"fieldPath": "x"}}, {"fieldRef": {"fieldPath": "x", "apiVersion": "v2"}}),
        ({"mountPath": "/x"}, {"mountPath": "/x", "readOnly": True}),
        ({"items": [1, 2]}, {"items": [2, 1]}),
        ({"image": {"reference": "a"}}, {"image": {"reference": "a", "pullPolicy": "Never"}}),
        ({"items": [1]}, {"items": [1, 2]}),
        ({"a": "x"}, {"a": ["x"]}),
        ({"spec": {"x": 1}}, {"spec": {"x": 1}, "metadata": {"creationTimestamp": None, "labels": {"a": "b"}}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1G"}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "x"}}),
        ({"emptyDir": {"sizeLimit": "x"}}, {"emptyDir": {"sizeLimit": "y"}}),
        ({"path": "1024Mi"}, {"path": "1Gi"}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1" * 1_000_000 + "x"}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1" * 1_000_000}}),
    ],
)
def test_what_differs_differs_both_ways(one, other):
    assert not same(one, other)
    assert not same(other, one)


@pytest.mark.parametrize(
    ("given", "known", "own", "rest"),
    [
        ({"a": 1, "x": 2}, {"a": 1}, {"a": 1}, {"a": 1}),
        ({"a": 1, "x": 2}, {"a": 1}, {"a": 1, "x": 3}, {"a": 1, "x": 2}),
        ({"a": 1}, {"a": 1}, {}, {"a": 1}),
        ({"a": {"b": 1, "x": 1}}, {"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 1}}),
        ({"a": [{"b": 1, "x": 1}]}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
        ({"a": [{"x": 1}, 2]}, {"a": [{}, 2]}, {"a": [{}]}, {"a": [{"x": 1}, 2]}),
        ({"x": [1]}, {}, {"x": {}}, {"x": [1]}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": "text"}, {"a": {}}),
    ],
)
def test_what_an_api_server_keeps_is_what_is_known_and_what_the_pod_has(given, known, own, rest):
    assert kept(given, known, own) == rest
