"""Several programs as functions of one package (iOS 18), which share their weights."""

from collections.abc import Mapping

import coremltools as ct
from coremltools.converters.mil.converter import mil_convert
from coremltools.converters.mil.mil import Program
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

from edgeseq.quiet_coremltools import quietly

TARGET = ct.target.iOS18


def joined(models: Mapping[str, ct.models.MLModel], default: str) -> ct.models.MLModel:
    """One model with the `main` of each as the function of that name; `default` is the one that apps load by no name."""
    program = Program()
    for name, model in models.items():
        program.add_function(name, model._mil_program.functions["main"])
    with quietly():
        PASS_REGISTRY["common::const_deduplication"]._deduplicate_const_across_functions(program)
        program.default_function_name = default
        program.skip_all_passes = True
        program.export_as_multifunction = True
        return mil_convert(
            program,
            convert_from="milinternal",
            convert_to="mlprogram",
            specification_version=TARGET,
            compute_units=ct.ComputeUnit.ALL,
            skip_model_load=True,
        )
