#!/bin/sh
echo "the load of $1 failed"
