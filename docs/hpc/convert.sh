#!/bin/bash
# What is done to one series. The job scripts beside this file run it in the series' folder
# `resources`; change it here, and all of them do something else.
set -euo pipefail

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
dcm2niix -f %s_%p -o "$out" DICOM/files
mkdir -p NIFTI
cp "$out"/* NIFTI/files/
