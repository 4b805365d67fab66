echo "3 warnings"
exit 3
